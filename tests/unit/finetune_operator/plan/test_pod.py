"""What the operator renders: whole objects, and that the trainer's side of the contract finds everything where it looks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.contract import env
from finetune_api.contract.run_config import RunConfig
from finetune_operator.plan.configmap import build_config_map, read_last_run
from finetune_operator.plan.observed import Manifest
from finetune_operator.plan.pod import build_pod_spec
from finetune_operator.plan.run_config import config_digest, preflight_digest
from finetune_operator.plan.service import build_service
from finetune_operator.plan.topology import GRAD_ACCUM
from finetune_operator.plan.verbs import build_verb
from finetune_operator.plan.workload import build_job
from tests.support.operator_cluster import SETTINGS
from tests.support.operator_values import make_config, make_job

OWNER = {
    "apiVersion": "finetune.dev/v1alpha1", "kind": "FineTuneJob", "name": "demo", "uid": "uid-job",
    "controller": True, "blockOwnerDeletion": True,
}  # fmt: skip
LABELS = {
    "finetune.dev/job": "demo",
    "finetune.dev/run": "1",
    "finetune.dev/component": "trainer",
    "app.kubernetes.io/managed-by": "finetune-operator",
}


def pod_spec(spec: dict[str, Any] | None = None, verb: str = "train") -> Manifest:
    return build_pod_spec(make_config(spec), "demo-r1", verb, SETTINGS)


def container(spec: dict[str, Any] | None = None, verb: str = "train") -> Manifest:
    (only,) = pod_spec(spec, verb)["containers"]
    assert isinstance(only, dict)
    return only


def mounts(spec: dict[str, Any] | None = None) -> dict[str, tuple[Manifest, bool]]:
    """Mount path -> (volume source, read-only)."""
    pod = pod_spec(spec)
    volumes = {volume["name"]: {key: value for key, value in volume.items() if key != "name"} for volume in pod["volumes"]}
    return {mount["mountPath"]: (volumes[mount["name"]], mount.get("readOnly", False)) for mount in pod["containers"][0]["volumeMounts"]}


def test_what_an_attached_adapter_needs() -> None:
    """R-12: its claim and its Secret, in the places where the trainer looks."""
    attach = {"uri": "pvc://adapters/first", "secretRef": {"name": "adapters"}}
    found = mounts({"adapter": {"attach": attach}})
    assert found[f"{env.PVC_DIR}/adapters"][0]["persistentVolumeClaim"]["claimName"] == "adapters"
    assert found[f"{env.SECRETS_DIR}/{env.SECRET_ADAPTER}"][0]["secret"]["secretName"] == "adapters"


def test_the_job_of_a_run() -> None:
    """Design §4: Indexed, Never, backoffLimit 0, podReplacementPolicy Failed, as many completions as pods, no TTL."""
    config = make_config({"replicas": 2})
    job = build_job(make_job(), config, SETTINGS, reason="Created")
    template = job["spec"].pop("template")
    assert job == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "demo-r1",
            "namespace": "default",
            "labels": LABELS,
            "annotations": {
                "finetune.dev/operator-version": "1.0.0",
                "finetune.dev/config-digest": config_digest(config),
                "finetune.dev/start-reason": "Created",
                "finetune.dev/devices": "2",
            },
            "ownerReferences": [OWNER],
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": 2,
            "parallelism": 2,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
        },
    }
    assert template["metadata"] == {
        "labels": LABELS,
        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "9090", "prometheus.io/path": "/metrics"},
    }
    assert (template["spec"]["subdomain"], template["spec"]["restartPolicy"]) == ("demo-r1", "Never")


def test_one_pod_needs_no_service() -> None:
    """Its ranks meet on localhost: nothing to name, and three objects less for the API server."""
    config = make_config({"resources": {"device": "gpu", "gpusPerReplica": 2}})
    assert build_service(make_job(), config, SETTINGS) is None
    assert "subdomain" not in build_job(make_job(), config, SETTINGS, reason="Created")["spec"]["template"]["spec"]


def test_the_service_of_a_run() -> None:
    """Headless, and it names pods that are not ready: the ranks meet before any of them is."""
    service = build_service(make_job(), make_config({"replicas": 2}), SETTINGS)
    assert service is not None
    assert service["spec"] == {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": LABELS,
        "ports": [{"name": "rendezvous", "port": 29500, "targetPort": 29500}],
    }


def test_the_config_map_is_immutable_and_read_back() -> None:
    config = make_config({"replicas": 2})
    manifest = build_config_map(make_job(), config, "demo-r1", "trainer", SETTINGS, asked_grad_accum_steps=3)
    assert manifest["immutable"] is True
    assert RunConfig.model_validate_json(manifest["data"]["config.json"]) == config
    last = read_last_run(manifest)
    assert last is not None
    assert (last.config, last.asked) == (config, {GRAD_ACCUM: 3})
    assert read_last_run(None) is None
    assert read_last_run({"metadata": {}, "data": {"config.json": "{}"}}) is None


def test_pod_security_restricted() -> None:
    """Design §4: Pod Security restricted, no API credentials, read-only root file system."""
    pod = pod_spec()
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"] == {
        "runAsNonRoot": True,
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "fsGroup": 65532,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_everything_is_mounted_where_the_contract_says() -> None:
    """contract/env.py: scratch is writable, the rest is not; credentials are optional files (the trainer names what is missing)."""
    seen = mounts(
        {
            "model": {"uri": "pvc://models/llama", "secretRef": {"name": "model-key"}},
            "dataset": {"uri": "configmap://rows/train.jsonl", "secretRef": {"name": "data-key"}, "evalUri": "pvc://data/eval.jsonl"},
            "secrets": {"huggingface": {"secretRef": {"name": "hub"}}},
            "logging": {"trackers": [{"type": "tensorboard"}, {"type": "wandb", "secretRef": {"name": "wandb-key"}}]},
            "checkpoint": {"secretRef": {"name": "my-store"}},
            "cache": {"claimName": "cache"},
            "resources": {"device": "cpu", "sharedMemory": "1Gi"},
        }
    )
    secret = {"optional": True, "defaultMode": 0o440}
    assert seen == {
        "/etc/finetune/run": ({"configMap": {"name": "demo-r1"}}, True),
        env.WORK_DIR: ({"emptyDir": {}}, False),
        "/tmp": ({"emptyDir": {}}, False),
        "/dev/shm": ({"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}, False),
        env.CACHE_DIR: ({"persistentVolumeClaim": {"claimName": "cache"}}, False),
        "/var/run/finetune/token": (
            {
                "projected": {
                    "sources": [{"serviceAccountToken": {"audience": "finetune-operator", "expirationSeconds": 3600, "path": "token"}}],
                    "defaultMode": 0o440,
                }
            },
            True,
        ),
        "/etc/finetune/ca": ({"configMap": {"name": "finetune-ca", "optional": True}}, True),
        f"{env.SECRETS_DIR}/store": ({"secret": {"secretName": "my-store", **secret}}, True),
        f"{env.SECRETS_DIR}/model": ({"secret": {"secretName": "model-key", **secret}}, True),
        f"{env.SECRETS_DIR}/dataset": ({"secret": {"secretName": "data-key", **secret}}, True),
        f"{env.SECRETS_DIR}/huggingface": ({"secret": {"secretName": "hub", **secret}}, True),
        f"{env.SECRETS_DIR}/tracker-1": ({"secret": {"secretName": "wandb-key", **secret}}, True),
        "/mnt/pvc/data": ({"persistentVolumeClaim": {"claimName": "data", "readOnly": True}}, True),
        "/mnt/pvc/models": ({"persistentVolumeClaim": {"claimName": "models", "readOnly": True}}, True),
        "/mnt/configmap/rows": ({"configMap": {"name": "rows", "optional": True}}, True),
    }


def test_the_store_secret_is_the_installations_unless_the_job_names_one() -> None:
    assert mounts()[f"{env.SECRETS_DIR}/store"][0]["secret"]["secretName"] == "finetune-storage"


def test_a_pod_waits_no_longer_than_asked_for_a_dead_node() -> None:
    """Design §4: not-ready and unreachable for 30 s, unless the job says otherwise."""
    own = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists"}
    tolerations = pod_spec({"resources": {"device": "cpu", "tolerations": [own, gpu]}})["tolerations"]
    assert tolerations == [
        own,
        gpu,
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30},
    ]


def test_what_the_job_asks_of_the_node() -> None:
    spec = {
        "device": "gpu", "gpusPerReplica": 2, "cpu": "8", "memory": "64Gi", "ephemeralStorage": "90Gi", "nodeSelector": {"gpu": "h200"},
        "priorityClassName": "high",
        "runtimeClassName": "nvidia", "image": "my/trainer:1",
    }  # fmt: skip
    pod = pod_spec({"resources": spec})
    assert (pod["nodeSelector"], pod["priorityClassName"], pod["runtimeClassName"]) == ({"gpu": "h200"}, "high", "nvidia")
    only = pod["containers"][0]
    assert only["resources"] == {
        "requests": {"cpu": "8", "memory": "64Gi", "ephemeral-storage": "90Gi"},
        "limits": {"memory": "64Gi", "ephemeral-storage": "90Gi", "nvidia.com/gpu": "2"},
    }
    assert (only["image"], only["args"], "command" in only) == ("my/trainer:1", ["train"], False)
    assert pod["terminationGracePeriodSeconds"] == 120


@pytest.mark.parametrize(
    ("spec", "threads"),
    [
        ({"device": "cpu"}, None),
        ({"device": "cpu", "processesPerReplica": 2}, "1"),
        ({"device": "cpu", "cpu": "4"}, "4"),
        ({"device": "cpu", "cpu": "4500m", "processesPerReplica": 2}, "2"),
        ({"device": "cpu", "cpu": "500m"}, "1"),
        ({"device": "gpu", "gpusPerReplica": 8, "cpu": "64"}, "8"),
    ],
)
def test_threads_per_rank(spec: dict[str, Any], threads: str | None) -> None:
    entries = {entry["name"]: entry.get("value") for entry in container({"resources": spec})["env"]}
    assert entries.get("OMP_NUM_THREADS") == threads


def test_the_pod_knows_who_it_is() -> None:
    """Downward API, under the names of the contract; the completion index is the Job controller's."""
    entries = {entry["name"]: entry["valueFrom"]["fieldRef"]["fieldPath"] for entry in container()["env"] if "valueFrom" in entry}
    assert entries == {
        env.ENV_POD_NAME: "metadata.name",
        env.ENV_POD_UID: "metadata.uid",
        env.ENV_POD_NAMESPACE: "metadata.namespace",
        env.ENV_NODE_NAME: "spec.nodeName",
    }


def test_a_verb_is_short_and_asks_for_no_gpu() -> None:
    """Design §4: short CPU pods with the job's credentials; given up after their deadline."""
    config = make_config({"resources": {"device": "gpu", "nodeSelector": {"gpu": "h200"}}})
    verb = build_verb(make_job(), config, "inspect", SETTINGS, deadline_seconds=300)
    assert verb.job["metadata"]["name"] == verb.config_map["metadata"]["name"] == "demo-inspect-1"
    assert verb.job["metadata"]["labels"]["finetune.dev/component"] == "inspect"
    spec = verb.job["spec"]
    assert (spec["activeDeadlineSeconds"], spec["backoffLimit"], spec["completions"]) == (300, 0, 1)
    pod = spec["template"]["spec"]
    assert "nodeSelector" not in pod
    assert pod["containers"][0]["args"] == ["inspect"]
    assert pod["containers"][0]["resources"] == {"requests": {"cpu": "100m", "memory": "256Mi"}}
    assert f"{env.SECRETS_DIR}/store" in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}


def test_what_a_preflight_is_asked_again_for() -> None:
    """The verdict is for data, model, store and credentials, not for size and logging."""
    digest = preflight_digest(make_config({"replicas": 1}), "trainer:1")
    assert preflight_digest(make_config({"replicas": 4, "logging": {"level": "debug"}}, run=7), "trainer:1") == digest
    assert preflight_digest(make_config({"dataset": {"uri": "configmap://rows/other.jsonl"}}), "trainer:1") != digest
    assert preflight_digest(make_config({"checkpoint": {"secretRef": {"name": "other"}}}), "trainer:1") != digest


def test_another_trainer_image_is_asked_again() -> None:
    """Z-01: what one image can do says nothing of another; a job with an image of its own does not care for the installation's."""
    plain, own = make_config({}), make_config({"resources": {"image": "mine:1"}})
    assert preflight_digest(plain, "trainer:1") != preflight_digest(plain, "trainer:2")
    assert preflight_digest(own, "trainer:1") == preflight_digest(own, "trainer:2")


def test_with_the_gpus_memory_known_a_preflight_judges_ranks_and_strategy_too() -> None:
    """N-01: what fits two GPUs need not fit one."""
    small = {"resources": {"device": "gpu", "gpuMemory": "24Gi"}}
    digests = {
        preflight_digest(make_config({**small, **changes}), "trainer:1")
        for changes in ({}, {"replicas": 2}, {"replicas": 2, "distributed": {"strategy": "zero2"}}, {"logging": {"level": "debug"}})
    }
    assert len(digests) == 3


def test_the_run_config_is_plain_json_without_secrets() -> None:
    document = json.loads(make_config({"output": {"uri": "s3://mine/runs/1/"}}).to_json())
    assert document["store"] == {"uri": "s3://mine/runs/1"}
    assert document["progress"] == {
        "url": "https://operator.finetune.svc:8443/v1/namespaces/default/finetunejobs/demo/progress",
        "intervalSeconds": 5.0,
    }

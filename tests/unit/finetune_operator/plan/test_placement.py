"""Where pods go: all that a job says of it arrives in the rendered Job."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from finetune_api.constants import GPU_RESOURCE
from finetune_operator.plan.observed import Manifest
from finetune_operator.plan.verbs import build_verb
from finetune_operator.plan.workload import build_job
from tests.support.manifests import ROOT, accepted
from tests.support.operator_cluster import SETTINGS
from tests.support.operator_values import make_config, make_job

(PLACED,) = (case.document["spec"] for case in accepted([ROOT / "tests/data/jobs/valid/placement.yaml"]))
RANKS = {
    "labelSelector": {"matchLabels": {"finetune.dev/job": "demo", "finetune.dev/run": "1", "finetune.dev/component": "trainer"}},
    "topologyKey": "topology.kubernetes.io/zone",
}
"""The run's own pods in one zone."""
REQUIRED, PREFERRED = "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"


def rendered(**resources: Any) -> Manifest:
    """The Job of the placed job, on GPUs and with these changes of its resources (None: without)."""
    written = {**copy.deepcopy(PLACED["resources"]), "device": "gpu", "gpusPerReplica": 8, **resources}
    spec = {**PLACED, "resources": {name: value for name, value in written.items() if value is not None}}
    return build_job(make_job(spec), make_config(spec), SETTINGS, reason="Created")


def pod_spec(**resources: Any) -> Manifest:
    """Of the same, the pod's spec."""
    spec: Manifest = rendered(**resources)["spec"]["template"]["spec"]
    return spec


def test_the_whole_affinity_is_passed_on_and_the_ranks_join_it() -> None:
    """L-06, L-09: what is written stays as it is; the ranks' own term comes after it."""
    expected = copy.deepcopy(PLACED["resources"]["affinity"])
    assert pod_spec(topology=None)["affinity"] == expected
    expected["podAffinity"][REQUIRED].append(RANKS)
    assert pod_spec()["affinity"] == expected


@pytest.mark.parametrize(
    ("ranks", "affinity", "spread"),
    [
        ("RequireTogether", {"podAffinity": {REQUIRED: [RANKS]}}, None),
        ("PreferTogether", {"podAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": RANKS}]}}, None),
        (None, {"podAffinity": {PREFERRED: [{"weight": 100, "podAffinityTerm": RANKS}]}}, None),
        ("RequireApart", None, [{"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule", **RANKS}]),
        ("PreferApart", None, [{"maxSkew": 1, "whenUnsatisfiable": "ScheduleAnyway", **RANKS}]),
    ],
)
def test_how_the_ranks_lie_to_each_other(ranks: str | None, affinity: Manifest | None, spread: list[Manifest] | None) -> None:
    """L-09."""
    topology = {"key": "topology.kubernetes.io/zone", **({"ranks": ranks} if ranks else {})}
    pod = pod_spec(affinity=None, topology=topology)
    assert (pod.get("affinity"), pod.get("topologySpreadConstraints")) == (affinity, spread)


def test_claims_reach_the_pod_and_its_container() -> None:
    """L-09: GPUs that come by a claim are not asked for a second time."""
    pod = pod_spec()
    assert pod["resourceClaims"] == [
        {"name": "gpu", "resourceClaimTemplateName": "eight-gpus"},
        {"name": "nic", "resourceClaimName": "shared-nic"},
    ]
    (container,) = pod["containers"]
    assert container["resources"]["claims"] == [{"name": "gpu", "request": "gpus"}, {"name": "nic"}]
    assert GPU_RESOURCE not in container["resources"]["limits"]


def test_a_claim_that_brings_no_gpus_leaves_the_gpus_to_be_asked_for() -> None:
    (container,) = pod_spec(resourceClaims=[{"name": "nic", "resourceClaimName": "shared-nic"}])["containers"]
    assert container["resources"]["limits"][GPU_RESOURCE] == "8"
    assert container["resources"]["claims"] == [{"name": "nic"}]


def test_scheduler_runtime_class_and_node_selector() -> None:
    """L-06, L-09."""
    pod = pod_spec(runtimeClassName="nvidia", nodeSelector={"pool": "gpu"})
    assert (pod["schedulerName"], pod["runtimeClassName"], pod["nodeSelector"]) == ("bin-packing", "nvidia", {"pool": "gpu"})


def test_the_pod_template_adds_labels_annotations_and_variables() -> None:
    """L-09: besides our own, which it cannot replace."""
    written = copy.deepcopy(PLACED["resources"]["podTemplate"])
    template = rendered(podTemplate={**written, "env": [*written["env"], {"name": "HOME", "value": "/elsewhere"}]})["spec"]["template"]
    assert template["metadata"]["labels"].items() >= {**written["labels"], "finetune.dev/job": "demo"}.items()
    assert template["metadata"]["annotations"].items() >= {**written["annotations"], "prometheus.io/scrape": "true"}.items()
    (container,) = template["spec"]["containers"]
    assert [entry for entry in container["env"] if entry["name"] in ("NCCL_SOCKET_IFNAME", "EMPTY", "HOME")] == [
        {"name": "NCCL_SOCKET_IFNAME", "value": "eth0"},
        {"name": "EMPTY", "value": ""},
        {"name": "HOME", "value": "/elsewhere"},
    ]


def test_a_job_with_a_queue_waits_for_its_admission() -> None:
    """L-02: suspended from the first moment, under the labels Kueue reads."""
    job = rendered()
    assert job["spec"]["suspend"] is True
    labels = {"kueue.x-k8s.io/queue-name": "team-a", "kueue.x-k8s.io/priority-class": "production"}
    assert job["metadata"]["labels"].items() >= labels.items()


def test_a_verb_goes_wherever_there_is_room() -> None:
    """Its pod needs neither the GPUs nor the places of the training."""
    verb = build_verb(make_job(PLACED), make_config(PLACED), "inspect", SETTINGS, deadline_seconds=300)
    pod = verb.job["spec"]["template"]["spec"]
    assert not {"affinity", "topologySpreadConstraints", "resourceClaims", "schedulerName", "runtimeClassName"} & set(pod)
    assert "claims" not in pod["containers"][0]["resources"]

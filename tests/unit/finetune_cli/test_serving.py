"""kubectl finetune infer: which jobs can be asked, and the Job of the server that answers."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.contract.pod import container_security, pod_security
from finetune_api.contract.serve import Form, ServeConfig
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.serving import Asked, build_server, check_askable, spec_of
from finetune_cli.short_jobs import Surroundings
from tests.unit.finetune_cli.builders import make_checkpoint, make_job

HERE = Surroundings("registry/trainer:1", endpoint="http://store:9000", region="eu-1")
DONE: dict[str, Any] = {
    "artifacts": {"finalUri": "s3://b/demo/final", "kind": "lora"},
    "outputUri": "s3://b/demo",
    "method": "sft",
    "run": 2,
}


def done(spec: dict[str, Any] | None = None, **status: Any) -> Job:
    """A job that has succeeded."""
    return make_job("Succeeded", spec=spec, **{**DONE, **status})


def test_the_server_is_a_restricted_pod_that_goes_with_its_job() -> None:
    """V-01 V-07 V-14: found again by its name, in the network policies of jobs, with the store's keys and room for the model."""
    job = done({"model": {"uri": "pvc://models/tiny", "secretRef": {"name": "keys"}}}, facts={"totalParameters": "1000000000"})
    made, config_map = build_server(job, Asked(), HERE)
    assert build_server(job, Asked(), HERE).job == made
    others = (Asked(checkpoint=3), Asked(form=Form.MERGED), Asked(gpu=True))
    assert len({made["metadata"]["name"], *(build_server(job, other, HERE).job["metadata"]["name"] for other in others)}) == 4
    assert made["metadata"]["labels"]["finetune.dev/job"] == ""
    (owner,) = made["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"], "blockOwnerDeletion" in owner) == ("FineTuneJob", "u-1", False)
    config = ServeConfig.model_validate_json(config_map["data"]["config.json"])
    assert (config.run.store.uri, config.run.store.endpoint, config.run.spec.model.uri) == (
        "s3://b/demo",
        "http://store:9000",
        "pvc://models/tiny",
    )
    assert (made["spec"]["backoffLimit"], made["spec"]["ttlSecondsAfterFinished"]) == (0, 600)
    pod = made["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert (pod["securityContext"], container["securityContext"]) == (pod_security(), container_security())
    assert (container["args"], pod["automountServiceAccountToken"], "ports" in container) == (["serve"], False, False)
    assert container["resources"] == {"requests": {"cpu": "500m", "memory": f"{(2_500_000_000 + 2 * 2**30) // 2**20}Mi"}}
    secrets = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
    assert secrets == {"secret-store": "finetune-storage", "secret-model": "keys"}
    assert {"name": "source-0", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in pod["volumes"]


def test_where_the_job_s_own_pods_may_run() -> None:
    """L-05 L-09: image, tolerations, variables and cache of the job; with --gpu its GpuType, whose name is what a catalogue says."""
    toleration = {"key": "gpu", "operator": "Exists"}
    resources = {
        "image": "own/trainer:2", "gpuType": "l4", "tolerations": [toleration], "nodeSelector": {"pool": "a"},
        "podTemplate": {"annotations": {"sidecar.istio.io/inject": "false"}, "env": [{"name": "HOME", "value": "/x"}]},
    }  # fmt: skip
    job = done({"resources": resources, "cache": {"claimName": "models"}})
    l4 = {
        "metadata": {"name": "l4"},
        "spec": {"resourceName": "nvidia.com/l4", "nodeSelector": {"gpu": "l4"}, "tolerations": [{"key": "l4"}]},
    }
    template = build_server(job, Asked(), HERE).job["spec"]["template"]
    container = template["spec"]["containers"][0]
    assert (container["image"], template["metadata"]["annotations"]) == ("own/trainer:2", {"sidecar.istio.io/inject": "false"})
    assert [each["value"] for each in container["env"] if each["name"] == "HOME"] == ["/x"]
    assert (template["spec"]["tolerations"], "nodeSelector" in template["spec"]) == ([toleration], False)
    caches = [volume for volume in template["spec"]["volumes"] if volume["name"] == "cache"]
    assert caches == [{"name": "cache", "persistentVolumeClaim": {"claimName": "models"}}]
    on_gpu = build_server(job, Asked(gpu=True), HERE, [l4]).job["spec"]["template"]["spec"]
    assert on_gpu["containers"][0]["resources"]["limits"] == {"nvidia.com/l4": "1"}
    assert (on_gpu["tolerations"], on_gpu["nodeSelector"]) == ([toleration, {"key": "l4"}], {"pool": "a", "gpu": "l4"})
    with pytest.raises(CliError, match="GpuType l4, which the cluster no longer has"):
        build_server(job, Asked(gpu=True), HERE)
    limits = build_server(done(), Asked(gpu=True), HERE).job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits == {"nvidia.com/gpu": "1"}


def test_what_others_decided_is_taken_from_the_status() -> None:
    """C-02 E-10: the model of a catalogue, the system prompt of a preset."""
    resolved = {
        "model.uri": {"value": "hf://org/tiny@main", "source": "model", "name": "tiny"},
        "model.trustRemoteCode": {"value": "true", "source": "model", "name": "tiny"},
        "dataset.systemPrompt": {"value": "Be brief.", "source": "preset"},
        "training.learningRate": {"value": "0.1", "source": "preset"},
    }
    spec = spec_of(done({"model": {"uri": "ref:tiny"}}, resolved=resolved), Asked())
    assert (spec.model.uri, spec.model.trust_remote_code, spec.dataset.system_prompt) == ("hf://org/tiny@main", True, "Be brief.")
    with pytest.raises(CliError, match=r"what model\.uri ref:tiny stands for is not known"):
        spec_of(done({"model": {"uri": "ref:tiny"}}), Asked())
    cut = {"dataset.systemPrompt": {"value": "x" * 256, "source": "preset"}}
    assert spec_of(done(resolved=cut), Asked(checkpoint=3)).dataset.system_prompt == "x" * 256  # the result's lineage has it whole
    with pytest.raises(CliError, match=r"dataset\.systemPrompt of its preset is too long for the status"):
        spec_of(done(resolved=cut, artifacts={}), Asked(checkpoint=3))


@pytest.mark.parametrize(
    ("job", "asked", "said", "advice"),
    [
        (make_job("Training", outputUri="s3://b/demo", checkpoints={"latest": make_checkpoint(40)}), Asked(),
         "has no result to ask; its phase is Training", "its status knows 40"),
        (make_job("Pending"), Asked(checkpoint=3), "has written nothing yet", ""),
        (done(method="reward"), Asked(), "is a reward model: it gives scores, no answers", ""),
        (done({"methodRef": {"name": "own"}}), Asked(), "was trained by TrainingMethod own", ""),
        (done(), Asked(Form.MERGED, 3), "a checkpoint (--checkpoint 3) has none", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_with_a_sentence(job: Job, asked: Asked, said: str, advice: str) -> None:
    """V-01 V-13."""
    with pytest.raises(CliError) as caught:
        check_askable(job, asked)
    assert said in str(caught.value)
    assert advice in caught.value.advice


def test_a_checkpoint_of_a_job_that_trains_can_be_asked() -> None:
    """V-13 X55."""
    job = make_job("Training", outputUri="s3://b/demo", checkpoints={"latest": make_checkpoint(40)})
    config = ServeConfig.model_validate_json(build_server(job, Asked(checkpoint=40), HERE).config_map["data"]["config.json"])
    assert config.checkpoint == 40

"""After the training: the export around which the phase is Exporting. Whatever becomes of it, a trained job is never Failed."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import EXIT_STORE_UNREACHABLE, EXIT_USER_ERROR, FailureClass
from finetune_api.contract.termination import TerminationMessage
from finetune_operator.plan.export_pod import export_resources
from tests.support.operator_cluster import FakeCluster, failure
from tests.support.operator_values import make_config

GGUF = {"export": {"gguf": {"enabled": True, "quant": ["Q8_0"]}}}
PUSH = {"push": {"enabled": True, "repoId": "org/model", "secretRef": {"name": "hub-write"}}}
OUTPUTS = [
    {"type": "merged", "uri": "s3://b/final/merged", "sizeBytes": 9, "digest": "d" * 64, "maxDelta": 1e-7},
    {"type": "gguf", "name": "Q8_0", "uri": "s3://b/final/gguf/demo-Q8_0.gguf", "sizeBytes": 4, "digest": "e" * 64},
]


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.verb_exit["export"] = answer()
    return cluster


def answer(**changes: Any) -> TerminationMessage:
    values: dict[str, Any] = {"message": "Exported: merged, Q8_0.", "result": {"outputs": OUTPUTS}}
    return TerminationMessage(contract_version=CONTRACT_VERSION, run=1, pod=0, exit_code=0, **{**values, **changes})


def broken(failure_class: FailureClass, code: int) -> TerminationMessage:
    return failure(failure_class, code, message="the export broke")


async def trained(cluster: FakeCluster, output: dict[str, Any], **spec: Any) -> None:
    """A job whose training has just ended."""
    cluster.create({"output": output, **spec})
    await cluster.until(lambda: cluster.phase in ("Exporting", "Succeeded"), train=50)


def story_of(cluster: FakeCluster) -> list[str]:
    return [reason for reason in cluster.story() if reason.startswith(("Export", "Succeeded", "Failed", "Retry"))]


async def test_a_job_that_asks_for_nothing_more_succeeds_at_once(cluster: FakeCluster) -> None:
    """W-02 AC-26: no pod, no phase, no condition; the adapter is all there is."""
    cluster.create()
    phases: list[str] = []
    for _ in range(40):
        await cluster.reconcile()
        cluster.step()
        await cluster.train(20)
        phases.append(cluster.phase)
    assert "Exporting" not in phases or cluster.status.export is None
    assert cluster.phase == "Succeeded"
    assert (cluster.jobs("export"), cluster.status.export, cluster.condition("Exported")) == ([], None, None)


async def test_the_export_runs_after_the_gpus_are_released(cluster: FakeCluster) -> None:
    """W-01 W-04 W-09: Exporting, then Succeeded with every form of the result in status.artifacts."""
    cluster.cordoned = False
    await trained(cluster, {"merge": True, **GGUF})
    assert cluster.phase == "Exporting"
    assert [pod for pod in cluster.pods() if pod["status"]["phase"] in ("Pending", "Running")] == []
    assert cluster.condition("Succeeded") == ("Unknown", "NotFinished")
    await cluster.until(lambda: cluster.phase == "Succeeded")
    assert cluster.condition("Exported") == ("True", "Exported")
    assert cluster.condition("Succeeded") == ("True", "Finished")
    assert [(each.type, each.name, each.size_bytes) for each in cluster.status.artifacts.outputs] == [
        ("merged", "", 9),
        ("gguf", "Q8_0", 4),
    ]
    assert cluster.status.artifacts.final_uri is not None
    assert story_of(cluster) == ["Exported", "Succeeded"]
    await cluster.settle(advance=True, rounds=5)
    assert cluster.jobs("export") == [], "cleared away with everything else"


async def test_its_pod_has_no_gpu_and_alone_sees_the_token(cluster: FakeCluster) -> None:
    """X-01: restricted, own resources, the push Secret; neither training nor other pods see it."""
    cluster.cordoned = True
    cluster.create({"output": {**PUSH, "export": {"cpu": "2", "memory": "8Gi", "timeoutSeconds": 900}}})
    await cluster.reconcile()
    cluster.cordoned = False
    await cluster.until(lambda: bool(cluster.jobs("export")), train=50)
    (job,) = cluster.jobs("export")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["args"] == ["export"]
    assert container["resources"] == {"requests": {"cpu": "2", "memory": "8Gi"}, "limits": {"memory": "8Gi"}}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert (job["spec"]["activeDeadlineSeconds"], job["metadata"]["name"]) == (900, "demo-export-1")
    assert "secret-push" in {volume["name"] for volume in pod["volumes"]}
    (training,) = cluster.jobs()
    assert "secret-push" not in {volume["name"] for volume in training["spec"]["template"]["spec"]["volumes"]}


@pytest.mark.parametrize(
    ("facts", "memory"),
    [
        ({"totalParameters": str(8 * 10**9), "dtype": "bfloat16"}, "21121Mi"),
        ({"totalParameters": "1000", "dtype": "float32"}, "2048Mi"),
        ({}, "2048Mi"),
    ],
)
def test_memory_follows_the_size_of_the_model(facts: dict[str, str], memory: str) -> None:
    """Weights once, a quarter to spare, 2 GiB; a request only."""
    assert export_resources(make_config({"output": {"merge": True}}), facts) == {"requests": {"cpu": "500m", "memory": memory}}


async def test_an_export_over_its_time_is_not_tried_again(cluster: FakeCluster) -> None:
    """Design §5: the condition names the field to raise."""
    cluster.create({"output": {"merge": True, "export": {"timeoutSeconds": 900}}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.cordoned = True
    await cluster.until(lambda: bool(cluster.jobs("export")), train=50)
    cluster.fail_job("demo-export-1", "DeadlineExceeded", "Job was active longer than specified deadline")
    await cluster.until(lambda: cluster.phase == "Succeeded")
    failed = next(c for c in cluster.status.conditions if c.type == "ExportFailed")
    assert (failed.status, failed.reason) == ("True", "ConfigurationError")
    assert "output.export.timeoutSeconds: raise it" in failed.message
    assert story_of(cluster) == ["ExportFailed", "Succeeded"]


async def test_a_failed_export_never_makes_a_trained_job_failed(cluster: FakeCluster) -> None:
    """Design §5: Succeeded, with a warning condition that says class, cause and what to do; a retry exports again."""
    cluster.verb_exit["export"] = broken(FailureClass.HUGGING_FACE_AUTH, EXIT_USER_ERROR)
    await trained(cluster, PUSH)
    await cluster.until(lambda: cluster.phase == "Succeeded")
    failed = next(c for c in cluster.status.conditions if c.type == "ExportFailed")
    assert (failed.status, failed.reason) == ("True", "HuggingFaceAuth")
    assert "the export broke" in failed.message
    assert "retry/<token>" in failed.message
    assert (cluster.condition("Failed"), cluster.condition("Stalled")) == (("False", "Finished"), ("False", "Finished"))
    assert cluster.status.failure is None
    await cluster.settle(advance=True, rounds=5)
    cluster.verb_exit["export"] = answer()
    cluster.annotate(**{"finetune.dev/request": "retry/1"})
    phases = set()
    for _ in range(10):
        await cluster.reconcile()
        cluster.step()
        phases.add(cluster.phase)
    assert phases == {"Succeeded"}, "final phases are never left"
    assert cluster.condition("ExportFailed") is None
    assert cluster.condition("Exported") == ("True", "Exported")
    assert len(cluster.status.artifacts.outputs) == 2
    assert cluster.status.last_handled_request == "retry/1"


async def test_an_outage_is_tried_again_with_back_off(cluster: FakeCluster) -> None:
    """Retried by class; what is complete in the store is the trainer's to know."""
    cluster.verb_exit["export"] = broken(FailureClass.HUB_UNAVAILABLE, EXIT_STORE_UNREACHABLE)
    await trained(cluster, PUSH)
    await cluster.until(lambda: cluster.status.export is not None and cluster.status.export.failures == 2)
    assert cluster.phase == "Exporting"
    cluster.verb_exit["export"] = answer()
    await cluster.until(lambda: cluster.phase == "Succeeded")
    assert cluster.condition("Exported") == ("True", "Exported")
    assert cluster.status.export is not None
    assert (cluster.status.export.serial, cluster.status.export.state) == (3, "Done")


async def test_tries_are_limited(cluster: FakeCluster) -> None:
    """retry.limit counts for the export on its own."""
    cluster.verb_exit["export"] = broken(FailureClass.HUB_UNAVAILABLE, EXIT_STORE_UNREACHABLE)
    await trained(cluster, PUSH, retry={"limit": 1, "backoffSeconds": 1})
    await cluster.until(lambda: cluster.phase == "Succeeded")
    assert cluster.condition("ExportFailed") == ("True", "HubUnavailable")
    assert cluster.status.export is not None
    assert cluster.status.export.serial == 2


@pytest.mark.parametrize(
    ("change", "phase"), [({"suspend": True}, "Paused"), ({"replicas": 0}, "Paused"), ({"desiredState": "Stopped"}, "Stopped")]
)
async def test_a_pause_takes_the_pod_and_a_resume_brings_it_back(cluster: FakeCluster, change: dict[str, Any], phase: str) -> None:
    """A pause leaves no pods, whatever they do; the training is not repeated."""
    cluster.create({"output": {"merge": True}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    await cluster.train(100)
    cluster.cordoned = True
    await cluster.until(lambda: cluster.phase == "Exporting" and bool(cluster.pods("export")), train=50)
    cluster.edit(change)
    await cluster.until(lambda: cluster.phase == phase)
    assert (cluster.pods("export"), cluster.jobs("export")) == ([], [])
    assert cluster.condition("Suspended") == ("True", "UserRequested")
    cluster.cordoned = False
    cluster.edit({"suspend": False, "replicas": 1, "desiredState": "Running"})
    await cluster.until(lambda: cluster.phase == "Succeeded")
    assert (cluster.status.run, cluster.condition("Exported")) == (1, ("True", "Exported"))


async def test_cancelling_an_export_keeps_the_trained_result(cluster: FakeCluster) -> None:
    """Cancelled is what was asked for; the message says where the result is."""
    cluster.create({"output": {"merge": True}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    await cluster.train(100)
    cluster.cordoned = True
    await cluster.until(lambda: bool(cluster.pods("export")), train=50)
    cluster.edit({"desiredState": "Cancelled"})
    await cluster.until(lambda: cluster.phase == "Cancelled")
    assert cluster.pods("export") == []
    assert cluster.status.artifacts.final_uri is not None
    assert cluster.condition("Exported") == ("False", "Cancelled")
    await cluster.settle(advance=True, rounds=5)
    assert cluster.jobs("export") == []


async def test_deleting_a_job_ends_its_export_before_the_store_is_cleaned(cluster: FakeCluster) -> None:
    """Q-09: nothing may write below a prefix that is being deleted."""
    cluster.create({"output": {"merge": True, "retain": "Delete"}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    await cluster.train(100)
    cluster.cordoned = True
    await cluster.until(lambda: bool(cluster.pods("export")), train=50)
    seen: list[tuple[int, int]] = []
    cluster.api.delete(("finetunejobs", cluster.key.namespace, cluster.key.name))
    cluster.cordoned = False
    for _ in range(20):
        await cluster.reconcile()
        seen.append((len(cluster.jobs("export")), len(cluster.jobs("cleanup"))))
        cluster.step()
    assert not [pair for pair in seen if pair[0] and pair[1]]
    assert any(cleaning for _, cleaning in seen)
    assert cluster.api.get("finetunejobs", cluster.key.name) is None


@pytest.mark.parametrize("request_text", ["checkpoint/1", "resume/1"])
async def test_other_requests_are_answered_and_change_nothing(cluster: FakeCluster, request_text: str) -> None:
    """Each token acts once, also when there is nothing to do."""
    await trained(cluster, {"merge": True})
    await cluster.until(lambda: cluster.phase == "Succeeded")
    cluster.annotate(**{"finetune.dev/request": request_text})
    await cluster.settle()
    assert cluster.status.last_handled_request == request_text
    assert "RequestIgnored" in cluster.story()
    assert cluster.status.export is not None
    assert cluster.status.export.state == "Done"


async def test_outputs_can_be_asked_for_after_the_training(cluster: FakeCluster) -> None:
    """Edit spec.output of a job that has succeeded, then request a retry: only the export runs."""
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Succeeded", train=50)
    await cluster.settle(advance=True, rounds=5)
    cluster.edit({"output": {"merge": True}})
    cluster.annotate(**{"finetune.dev/request": "retry/now"})
    await cluster.until(lambda: cluster.condition("Exported") == ("True", "Exported"))
    assert (cluster.phase, cluster.status.run) == ("Succeeded", 1)
    (config,) = [
        m for plural, kind, m in cluster.api.history if plural == "configmaps" and kind == "ADDED" and "export" in m["metadata"]["name"]
    ]
    assert cluster.status.output_uri is not None
    assert cluster.status.output_uri in config["data"]["config.json"]


async def test_a_retry_of_a_job_without_outputs_is_refused_with_the_fields(cluster: FakeCluster) -> None:
    """A succeeded job cannot be trained again."""
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Succeeded", train=50)
    cluster.annotate(**{"finetune.dev/request": "retry/x"})
    await cluster.settle()
    assert "output.merge" in cluster.event("RequestIgnored")
    assert cluster.status.export is None

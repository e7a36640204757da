"""What kubectl shows: columns, explain, wait, describe, scale; and that GPUs are asked for rightly (A-09, L-03, Q-10)."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.platform import Kubectl, eventually

pytestmark = pytest.mark.e2e


def test_kubectl_get_wait_describe(run_job: JobFactory, namespace: Kubectl) -> None:
    """Columns tell phase, progress, step, loss, attempts; wait for Succeeded works; describe tells the story in events."""
    job = run_job("shown", {"training": {"maxSteps": 5}})
    namespace("wait", "--for=condition=Succeeded", "finetunejob/shown", "--timeout=240s")
    header, row = namespace("get", "ftj", "shown").splitlines()
    assert header.split() == ["NAME", "PHASE", "METHOD", "PROGRESS%", "STEP", "LOSS", "ETA", "ATTEMPTS", "GPUS", "AGE"]
    assert row.split()[:5] == ["shown", "Succeeded", "sft", "100", "5"]
    told = namespace("describe", "ftj", "shown")
    for reason in ("RunCreated", "CheckpointSaved", "Succeeded"):
        assert reason in told
    explained = namespace("explain", "ftj.spec.training.batchSize")
    assert "Default: 2" in explained
    assert "128" in explained
    assert job.status["observedGeneration"] == job.object["metadata"]["generation"]
    assert len(str(job.object)) < 24_000


def test_selectable_phase(run_job: JobFactory, namespace: Kubectl) -> None:
    """Jobs can be listed by phase on the server."""
    run_job("selected", {"suspend": True})
    eventually(
        lambda: "selected" in namespace("get", "ftj", "--field-selector", "status.phase=Paused", "-o", "name") or None,
        within=60,
        what="the job in a list by phase",
    )


def test_gpus_are_asked_for(run_job: JobFactory, namespace: Kubectl) -> None:
    """A GPU job passes preflight in a CPU pod, then its pods carry nvidia.com/gpu limits and are scheduled on advertised GPUs (AC-49)."""
    job = run_job("gpus", {"resources": {"device": "gpu", "gpusPerReplica": 2}, "training": {"gradAccumSteps": 2, "maxSteps": 5}})

    def scheduled() -> dict[str, object] | None:
        pods = [p for p in job.pods() if p["metadata"]["labels"].get("finetune.dev/component") == "trainer"]
        return pods[0] if pods and pods[0]["spec"].get("nodeName") else None

    pod = eventually(scheduled, within=180, what="a scheduled GPU pod")
    limits = pod["spec"]["containers"][0]["resources"]["limits"]  # type: ignore[index]
    assert limits["nvidia.com/gpu"] == "2"
    assert namespace.items("pods", "finetune.dev/job=gpus,finetune.dev/component=preflight") is not None
    foretold = job.status["estimate"]["training"]
    assert (foretold["steps"], foretold["stopBy"], foretold["checkpoints"]) == (5, "steps", 1), "O-15: said before a GPU is asked for"
    assert foretold["keptBytes"] == foretold["checkpointBytes"] > 0, "J-06"
    assert job.status["estimate"]["checkpoint"]["uploadBytesPerSecond"] > 0, "OP-11"
    assert (job.status["method"], job.status["gpus"]) == ("sft", 2), "A-09"
    assert job.condition("EnvironmentReady")["status"] == "True", "Z-01: the image has its packages and CUDA"
    status = job.wait_phase("Failed", within=240)
    assert "0 GPUs" in status["failure"]["message"], "no GPU here: said by name, not retried"

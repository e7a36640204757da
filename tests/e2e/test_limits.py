"""A limit is a pause with a checkpoint, not a kill (O-11, OP-12)."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.jobs import make_job
from tests.support.platform import Kubectl, eventually

pytestmark = pytest.mark.e2e
GPU_HOURS = 0.01
"""The least that a job may be given: 36 s of one rank."""
MORE_STEPS = 10


def test_a_used_up_limit_pauses_and_a_higher_one_goes_on(run_job: JobFactory, namespace: Kubectl) -> None:
    """At the limit: a checkpoint of that very step, no pods, the reason; the request alone is refused; raised, the next step follows."""
    job = run_job("limited", {"limits": {"maxGpuHours": GPU_HOURS}, "training": {"maxSteps": 20_000}, "checkpoint": {"steps": 100}})
    status = job.wait_phase("Paused", within=240)
    assert (status["reason"], job.pods()) == ("LimitReached", [])
    assert "spec.limits.maxGpuHours is 0.01" in status["hold"]["message"]
    at = status["progress"]["step"]
    assert status["checkpoints"]["latest"]["step"] == at
    assert sorted(job.rows()) == list(range(1, at + 1))
    used = status["usage"]["activeSeconds"]
    assert used >= 3600 * GPU_HOURS

    request(namespace, "resume/too-early")
    eventually(lambda: job.status.get("lastHandledRequest") == "resume/too-early" or None, within=60, what="an answer to the request")
    assert (job.phase, job.status["run"], job.pods()) == ("Paused", 1, [])

    namespace.apply(
        make_job("limited", {"training": {"maxSteps": at + MORE_STEPS}, "limits": {"maxGpuHours": 1}, "checkpoint": {"steps": 100}})
    )
    request(namespace, "resume/raised")
    done = job.wait_phase("Succeeded")
    assert done["attempts"][-1]["fromStep"] == at
    assert sorted(job.rows()) == list(range(1, at + MORE_STEPS + 1))
    assert done["usage"]["activeSeconds"] > used


def request(namespace: Kubectl, token: str) -> None:
    namespace("annotate", "finetunejob", "limited", f"finetune.dev/request={token}", "--overwrite")

"""Every way of sharing a training among ranks, as a job of two pods without a shared volume."""

from __future__ import annotations

import os
from typing import Any, Final

import pytest

from finetune_api.strategies import REPLICATED, STRATEGIES
from tests.e2e.conftest import JobFactory
from tests.support.jobs import make_job, merge
from tests.support.platform import Job, Kubectl, Platform, StepRow

pytestmark = pytest.mark.e2e
SOAK: Final = bool(os.environ.get("FINETUNE_SOAK"))
SPLITTING: Final = tuple(name for name in STRATEGIES if name not in REPLICATED)
CHOSEN: Final = SPLITTING if SOAK else ("fsdp", "zero3_offload")
STEPS: Final = 200 if SOAK else 10
"""With a pause among them, the answer to a progress post takes up to 5 s."""
COMPARED: Final = 10
SPEC: Final[dict[str, Any]] = {"replicas": 2, "training": {"gradAccumSteps": 2, "maxSteps": STEPS}, "checkpoint": {"steps": 100}}


@pytest.fixture(scope="module")
def whole_copies(platform: Platform, namespace: Kubectl) -> dict[int, StepRow]:
    """Recorded steps of the same training with a whole copy on each rank."""
    namespace.apply(make_job("ddp", SPEC))
    job = Job(platform, namespace, "ddp")
    job.wait_phase("Succeeded")
    return job.rows()


@pytest.mark.parametrize("strategy", CHOSEN)
def test_a_job_of_each_strategy(whole_copies: dict[int, StepRow], run_job: JobFactory, strategy: str) -> None:
    """M-01, M-02: it trains on the same rows to the same losses, goes on after a pause (`make soak`), and leaves a plain result."""
    job = run_job(strategy.replace("_", "-"), merge(SPEC, {"distributed": {"strategy": strategy}}))
    if SOAK:
        job.wait_step(3)
        job.scale(0)
        assert job.wait_phase("Paused")["pause"]["saved"] is True
        job.scale(2)
    status = job.wait_phase("Succeeded")
    assert status["facts"]["strategy"] == strategy
    assert status.get("usage", {}).get("lostSteps", 0) == 0
    rows = job.rows()
    assert sorted(rows) == sorted(whole_copies) == list(range(1, STEPS + 1))
    assert [row.samples for row in rows.values()] == [row.samples for row in whole_copies.values()]
    worst = max(abs(rows[step].loss - whole_copies[step].loss) for step in range(1, COMPARED + 1))
    assert worst <= 1e-5, f"largest difference of a step's loss: {worst}"
    assert "final/adapter_model.safetensors" in job.objects()

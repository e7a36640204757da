"""Pause by scaling to zero, at random moments, loses nothing (Q-01, Q-10, R-08, R-14)."""

from __future__ import annotations

import os
import random
from typing import Any, NamedTuple

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.jobs import make_job
from tests.support.platform import Job, Kubectl, Platform, StepRow, eventually

pytestmark = pytest.mark.e2e
STEPS = 400
SPEC: dict[str, Any] = {
    "dataset": {"evalRatio": 0.1},
    "adapter": {"dropout": 0.05},
    "training": {"maxSteps": STEPS},
    "evaluation": {"strategy": "steps", "steps": 17, "batchSize": 8},
    "earlyStopping": {"patience": 50},
    "checkpoint": {"steps": 40},
}
TWO_PODS = {"replicas": 2, "training": {"maxSteps": STEPS, "gradAccumSteps": 2}}
SOAK = bool(os.environ.get("FINETUNE_SOAK"))
MOMENTS = random.Random(20261121).sample(range(150), 20)  # noqa: S311 - moments, not secrets
"""Steps after which the pause is asked (0: during start-up), early enough that the command, which may take 5 s, comes before the end."""


class Reference(NamedTuple):
    """A run never paused."""

    rows: dict[int, StepRow]
    final: dict[str, str]


def variant(pods: int, logging_steps: int) -> dict[str, Any]:
    """Spec of a test run."""
    spec = {**SPEC, **(TWO_PODS if pods == 2 else {})}
    return {**spec, "logging": {"steps": logging_steps}}


@pytest.fixture(scope="module")
def references(platform: Platform, namespace: Kubectl) -> dict[int, Reference]:
    """Runs never paused, made when first asked for."""

    class Made(dict[int, Reference]):
        def __missing__(self, pods: int) -> Reference:
            name = f"never-paused-{pods}"
            namespace.apply(make_job(name, variant(pods, 10)))
            job = Job(platform, namespace, name)
            job.wait_phase("Succeeded")
            self[pods] = Reference(job.rows(), job.final_digests())
            return self[pods]

    return Made()


def moments() -> list[tuple[int, int, int]]:
    """(pods, logging.steps, step): three in a quick run, twenty per number of pods in a soak."""
    chosen = [(1 + i % 2, (1, 10)[i // 2 % 2], step) for i, step in enumerate(MOMENTS)]
    everything = [(pods, (1, 10)[i % 2], step) for pods in (1, 2) for i, step in enumerate(MOMENTS)]
    return everything if SOAK else [chosen[2], chosen[1]]


@pytest.mark.parametrize(("pods", "logging_steps", "step"), moments())
def test_pause_and_resume_change_nothing(
    run_job: JobFactory, references: dict[int, Reference], pods: int, logging_steps: int, step: int
) -> None:
    """Pausing -> checkpoint of that very step -> zero pods -> Paused; resumed, every step equals the run never paused, difference 0.0."""
    reference = references[pods]
    job = run_job(f"paused-{pods}-{logging_steps}-{step}", variant(pods, logging_steps))
    job.wait_step(step) if step else job.wait_phase("Starting", "Training")
    job.scale(0)
    status = job.wait_phase("Paused", within=180)
    assert job.pods() == []
    assert status["reason"] == "UserRequested"
    if not status["pause"].get("saved"):
        assert status.get("checkpoints", {}).get("latest") is None, "unsaved only before the first step"
        stopped_at = 0
    else:
        stopped_at = status["pause"]["step"]
        assert status["checkpoints"]["latest"]["step"] == stopped_at
        attempt = status["checkpoints"]["latest"]["attempt"]
        assert f"a{attempt}/checkpoint-{stopped_at}/manifest.json" in job.objects()
    assert job.condition("Ready")["status"] == "True"
    job.scale(pods)
    final = job.wait_phase("Succeeded")
    assert final.get("usage", {}).get("lostSteps", 0) == 0
    rows = job.rows()
    assert {s: r.attempt for s, r in rows.items() if s <= stopped_at} == dict.fromkeys(range(1, stopped_at + 1), rows[1].attempt)
    for number, expected in reference.rows.items():
        got = rows[number]
        assert (got.loss, got.grad_norm, got.learning_rate, got.samples) == (
            expected.loss, expected.grad_norm, expected.learning_rate, expected.samples,
        ), f"step {number}, paused after {stopped_at}"  # fmt: skip
    assert job.final_digests() == reference.final


def test_suspend_survives_an_apply(run_job: JobFactory, namespace: Kubectl) -> None:
    """suspend: true pauses before any pod exists, stays through another apply, and is undone by the spec alone."""
    job = run_job("suspended", {"suspend": True, "training": {"maxSteps": 3}})
    job.wait_phase("Paused", within=60)
    assert job.pods() == []
    namespace.apply(make_job("suspended", {"suspend": True, "training": {"maxSteps": 3}}))
    assert job.phase == "Paused"
    namespace.apply(make_job("suspended", {"suspend": False, "training": {"maxSteps": 3}}))
    job.wait_phase("Succeeded")


def test_pause_while_starting_frees_the_pods(run_job: JobFactory) -> None:
    """A pause before the first step has nothing to save and gives up the pods at once (OP-09)."""
    job = run_job("paused-early", {"training": {"maxSteps": 3}})
    eventually(lambda: job.pods() or None, within=60, what="a pod")
    job.scale(0)
    status = job.wait_phase("Paused", within=60)
    assert status.get("checkpoints", {}).get("latest") is None
    assert job.pods() == []

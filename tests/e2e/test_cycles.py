"""One run paused and resumed over and over, at random moments, equals the run never paused (Q-01, Q-10, R-08, R-14)."""

from __future__ import annotations

import functools
import os
import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.jobs import make_job, merge
from tests.support.platform import Job, Kubectl, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e
SOAK = bool(os.environ.get("FINETUNE_SOAK"))
STEPS = 3000 if SOAK else 500
"""More than the cycles can use up: the answer to a progress post takes up to 5 s, so a cycle trains some hundred steps."""
LONGEST_WAIT = 6.0
SPEC: dict[str, Any] = {
    "dataset": {"evalRatio": 0.1},
    "adapter": {"dropout": 0.05},
    "training": {"maxSteps": STEPS},
    "evaluation": {"strategy": "steps", "steps": 37 if SOAK else 17, "batchSize": 8},
    "earlyStopping": {"patience": 100},
    "checkpoint": {"steps": 20, "keepLast": 2},
}
TWO_PODS = {"replicas": 2, "training": {"gradAccumSteps": 2}}
QUICK = [(1, 10, 3), (2, 1, 2)]
LONG = [(1, 10, 20), (2, 1, 20), (1, 1, 5), (2, 10, 5)]


def changes(pods: int, logging_steps: int) -> dict[str, Any]:
    """What the run with this many pods sets."""
    return merge(merge(SPEC, TWO_PODS if pods == 2 else {}), {"logging": {"steps": logging_steps}})


def wait_until_asked(job: Job, moments: random.Random, cycle: int) -> str:
    """Come to a random moment of the cycle's run; the second of five pauses while pods start, the others while it trains."""
    run = cycle + 1
    eventually(lambda: job.status.get("run") == run or None, within=120, what=f"run {run}")
    if cycle % 5 == 1:
        eventually(lambda: job.pods() or None, within=120, what="a pod")
        threading.Event().wait(moments.uniform(0, 12))
        return "start"
    eventually(lambda: (job.phase in {"Training", "Evaluating"}) or None, within=240, what="training")
    threading.Event().wait(moments.uniform(0, LONGEST_WAIT))
    return str(job.status.get("progress", {}).get("phase", ""))


def phases(shown: list[dict[str, Any]]) -> set[str]:
    """Phases of versions of the object."""
    return {each["status"].get("phase", "") for each in shown}


def pause_at_the_end(job: Job, pods: int) -> None:
    """Ask for a pause among the last steps: it either comes in time or the run has ended."""
    job.wait_step(STEPS - 60, within=900)
    job.scale(0)
    if job.wait_phase("Paused", "Succeeded")["phase"] == "Paused":
        job.scale(pods)


@pytest.fixture(scope="module")
def straight(platform: Platform, namespace: Kubectl) -> Callable[[int], Job]:
    """The run never paused with this many pods, made when first asked for."""

    @functools.cache
    def made(pods: int) -> Job:
        namespace.apply(make_job(f"straight-{pods}", changes(pods, 10)))
        job = Job(platform, namespace, f"straight-{pods}")
        job.wait_phase("Succeeded", within=1800)
        return job

    return made


@pytest.mark.timeout(3600 if SOAK else 900)
@pytest.mark.parametrize(("pods", "logging_steps", "cycles"), LONG if SOAK else QUICK)
def test_many_pauses_change_nothing(
    run_job: JobFactory, straight: Callable[[int], Job], pods: int, logging_steps: int, cycles: int, fault: Fault
) -> None:
    """Each pause is acknowledged with a checkpoint of its step and zero pods; at the end every step equals, difference 0.0."""
    reference = straight(pods)
    moments = random.Random(f"{pods} {logging_steps}")  # noqa: S311 - moments, not secrets
    job = run_job(f"cycled-{pods}-{logging_steps}", changes(pods, logging_steps))
    asked: Counter[str] = Counter()
    stops: list[int] = []
    for cycle in range(cycles):
        moment = wait_until_asked(job, moments, cycle)
        asked[moment] += 1
        with job.watched() as shown:
            job.scale(0)
            status = job.wait_phase("Paused", within=240)
            seen = eventually(lambda: found if "Paused" in (found := phases(shown())) else None, within=30, what="the pause in the watch")
        assert moment == "start" or "Pausing" in seen, "what is trained is saved first"
        assert job.pods() == []
        assert status["reason"] == "UserRequested"
        assert job.condition("Ready")["status"] == "True"
        stopped = int(status["pause"]["step"]) if status["pause"].get("saved") else (stops[-1] if stops else 0)
        if status["pause"].get("saved"):
            latest = status["checkpoints"]["latest"]
            assert latest["step"] == stopped
            assert f"a{latest['attempt']}/checkpoint-{stopped}/manifest.json" in job.objects()
        stops.append(stopped)
        job.scale(pods)
    pause_at_the_end(job, pods)
    final = job.wait_phase("Succeeded", within=1800)
    print(f"{pods} pods: paused {cycles} times, {dict(asked)}, after steps {stops}")
    assert final.get("usage", {}).get("lostSteps", 0) == 0
    assert stops == sorted(stops)
    rows, expected = job.rows(), reference.rows()
    assert sorted(rows) == sorted(expected) == list(range(1, STEPS + 1))
    for step, row in expected.items():
        got = rows[step]
        assert (got.loss, got.grad_norm, got.learning_rate, got.samples) == (
            row.loss, row.grad_norm, row.learning_rate, row.samples,
        ), f"step {step}, pauses after {stops}"  # fmt: skip
    assert job.final_digests() == reference.final_digests()
    fault.strikes(f"paused and resumed at random moments, {pods} pod{'s' if pods > 1 else ''}", cycles)
    fault.ends("same losses and weights as never paused, difference 0.0", 0)

"""A pause before anything was trained: by suspend, and while pods start (Q-01, OP-09). Pauses of a training run: test_cycles."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.jobs import make_job
from tests.support.platform import Kubectl, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e


def test_suspend_survives_an_apply(run_job: JobFactory, namespace: Kubectl) -> None:
    """suspend: true pauses before any pod exists, stays through another apply, and is undone by the spec alone."""
    job = run_job("suspended", {"suspend": True, "training": {"maxSteps": 3}})
    job.wait_phase("Paused", within=60)
    assert job.pods() == []
    namespace.apply(make_job("suspended", {"suspend": True, "training": {"maxSteps": 3}}))
    assert job.phase == "Paused"
    namespace.apply(make_job("suspended", {"suspend": False, "training": {"maxSteps": 3}}))
    job.wait_phase("Succeeded")


def test_pause_while_starting_frees_the_pods(run_job: JobFactory, fault: Fault) -> None:
    """A pause before the first step has nothing to save and gives up the pods at once (OP-09)."""
    job = run_job("paused-early", {"training": {"maxSteps": 3}})
    eventually(lambda: job.pods() or None, within=60, what="a pod")
    fault.strikes("paused while pods start")
    job.scale(0)
    status = job.wait_phase("Paused", within=60)
    fault.recovered()
    assert status.get("checkpoints", {}).get("latest") is None
    assert job.pods() == []
    fault.ends("Paused at once, nothing to save", 0)

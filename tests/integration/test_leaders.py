"""Two operators on a real API server: one acts, and a leader that was stopped changes nothing when it wakes (design §4, HA)."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.jobs import make_job
from tests.support.operator_process import Operator
from tests.support.platform import Kubectl, eventually

NOWHERE = {"finetune.dev/test": "nowhere"}


def holder(kubectl: Kubectl) -> str:
    """Who leads."""
    lease = kubectl.get("lease", "finetune-operator")
    return str((lease or {}).get("spec", {}).get("holderIdentity") or "")


def phase(kubectl: Kubectl) -> str:
    """Phase of the job."""
    return str(((kubectl.get("finetunejob", "led") or {}).get("status") or {}).get("phase", ""))


def everything(kubectl: Kubectl) -> dict[str, str]:
    """Versions of all objects an operator could have written."""
    found: dict[str, str] = {}
    for kind in ("finetunejobs", "jobs", "services", "configmaps", "secrets"):
        found |= {f"{kind}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in kubectl.items(kind)}
    return found


def run_of(kubectl: Kubectl) -> list[str]:
    """Names of the child Jobs."""
    return [item["metadata"]["name"] for item in kubectl.items("jobs")]


@pytest.fixture
def two(unattended: Kubectl, tmp_path: Path) -> Iterator[tuple[Operator, Operator]]:
    """(leader, standby)."""
    with ExitStack() as stack:
        operators = [Operator(unattended, name, tmp_path / f"{name}.log", stack) for name in ("one", "two")]
        leader = eventually(lambda: holder(unattended) or None, within=60, what="a leader")
        operators.sort(key=lambda operator: operator.identity != leader)
        yield operators[0], operators[1]


def job_spec() -> dict[str, Any]:
    """A job no node can take."""
    return make_job("led", {"resources": {"nodeSelector": NOWHERE}})


def test_a_leader_that_wakes_changes_nothing(unattended: Kubectl, two: tuple[Operator, Operator]) -> None:
    """SIGSTOP the leader; the other one takes over within 20 s and pauses, resumes, pauses; the first wakes and leaves without a write."""
    leader, standby = two
    unattended.apply(job_spec())
    eventually(lambda: run_of(unattended) == ["led-r1"] or None, within=60, what="the first run")
    os.kill(leader.process.pid, signal.SIGSTOP)
    eventually(lambda: holder(unattended) == standby.identity or None, within=60, what="the other one leads")
    for replicas, expected in ((0, []), (1, ["led-r2"]), (0, [])):
        unattended("scale", "finetunejob/led", f"--replicas={replicas}")
        eventually(lambda wanted=expected: run_of(unattended) == wanted or None, within=90, what=f"runs {expected}")  # type: ignore[misc]
    eventually(lambda: phase(unattended) == "Paused" or None, within=60, what="Paused")
    before = everything(unattended)
    os.kill(leader.process.pid, signal.SIGCONT)
    assert leader.process.wait(60) != 0, leader.log.read_text()
    assert everything(unattended) == before
    assert holder(unattended) == standby.identity
    assert standby.process.poll() is None

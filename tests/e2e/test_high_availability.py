"""Two operators from the chart: each answers trainers, one leads, and the other takes over (design §4, HA)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.install import install_chart
from tests.support.platform import SYSTEM_NAMESPACE, Kubectl, Platform, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.alone]
OPERATOR = "finetune-operator"
SPEC: dict[str, Any] = {"training": {"maxSteps": 20_000}, "checkpoint": {"steps": 200}}
"""Longer than the test: it ends with a pause."""


@pytest.fixture
def system(platform: Platform) -> Iterator[Kubectl]:
    """The operator's namespace with two ready replicas; one again after the test."""
    kubectl = platform.kubectl.within(SYSTEM_NAMESPACE)
    install_chart(platform.kubectl, "operator.replicas=2")
    kubectl("rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s")
    yield kubectl
    install_chart(platform.kubectl)


def leader(system: Kubectl) -> str:
    """The pod that holds the Lease."""
    lease = system.get("lease", OPERATOR)
    assert lease is not None
    return str(lease["spec"].get("holderIdentity") or "")


def pods(system: Kubectl) -> set[str]:
    """The operator's pods that are not ending."""
    found = system.items("pods", "app.kubernetes.io/component=operator")
    return {pod["metadata"]["name"] for pod in found if "deletionTimestamp" not in pod["metadata"]}


def test_the_other_operator_takes_over(platform: Platform, system: Kubectl, run_job: JobFactory, namespace: Kubectl) -> None:
    """The leader is killed without notice: the job reports on, and the new leader pauses it; nothing was restarted."""
    budget = eventually(lambda: system.get("poddisruptionbudget", OPERATOR), within=30, what="a disruption budget")
    assert budget["spec"]["maxUnavailable"] == 1
    job = run_job("two-operators", SPEC)
    job.wait_step(10)
    first = eventually(lambda: leader(system), within=60, what="a leader")
    assert first in pods(system)
    system("delete", "pod", first, "--force", "--grace-period=0")
    eventually(lambda: leader(system) in pods(system), within=60, what="another leader")
    job.wait_step(int(job.status["progress"]["step"]) + 50)
    namespace("patch", "finetunejob", job.name, "--type=merge", "-p", '{"spec":{"suspend":true}}')
    status = job.wait_phase("Paused")
    assert status["pause"]["saved"] is True
    assert (status["run"], status["attemptCount"]) == (1, 1)

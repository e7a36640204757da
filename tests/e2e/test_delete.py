"""Deletion leaves nothing in the cluster, and in the store what output.retain says (Q-09)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.e2e.conftest import JobFactory, prepare_namespace
from tests.support.jobs import make_job
from tests.support.platform import SYSTEM_NAMESPACE, Job, Kubectl, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e
SHORT: dict[str, Any] = {"training": {"maxSteps": 3}}
LONG: dict[str, Any] = {"training": {"maxSteps": 2000}}


@pytest.mark.parametrize("retain", ["Keep", "Delete"])
def test_delete_a_finished_job(platform: Platform, namespace: Kubectl, retain: str) -> None:
    """No child stays; the objects stay or go."""
    name = f"finished-{retain.lower()}"
    namespace.apply(make_job(name, {**SHORT, "output": {"retain": retain}}))
    job = Job(platform, namespace, name)
    job.wait_phase("Succeeded")
    prefix = job.prefix
    namespace("delete", "finetunejob", name, "--timeout=120s")
    for kind in ("pods", "jobs", "services", "configmaps"):
        eventually(partial(_none_left, namespace, kind, name), within=60, what=f"{kind} gone")
    assert bool(platform.objects(prefix)) == (retain == "Keep")


def test_a_running_job_is_not_deleted_by_accident(run_job: JobFactory, namespace: Kubectl) -> None:
    """DELETE of a running job is refused with the hint; after Stopped it goes (AC-03)."""
    job = run_job("running", LONG)
    job.wait_step(1)
    refused = namespace.run("delete", "finetunejob", "running", "--wait=false", check=False)
    assert refused.returncode != 0
    assert "desiredState" in refused.stderr
    namespace("patch", "finetunejob", "running", "--type=merge", "-p", '{"spec":{"desiredState":"Stopped"}}')
    job.wait_phase("Stopped")
    assert job.pods() == []


@pytest.fixture(params=["operator-up", pytest.param("operator-down", marks=pytest.mark.alone)])
def operator(platform: Platform, request: pytest.FixtureRequest) -> Iterator[str]:
    """The operator's state during the test; brought back afterwards."""
    yield str(request.param)
    platform.kubectl.within(SYSTEM_NAMESPACE)("scale", "deployment/finetune-operator", "--replicas=1")
    platform.kubectl.within(SYSTEM_NAMESPACE)("rollout", "status", "deployment/finetune-operator", "--timeout=120s")


def test_namespace_deleted_while_training(platform: Platform, operator: str, fault: Fault) -> None:
    """Kubectl delete ns ends, operator up or down, also with retain Delete."""
    name = f"e2e-doomed-{operator}"
    prepare_namespace(platform, name)
    kubectl = platform.kubectl.within(name)
    kubectl.apply(make_job("doomed", {**LONG, "output": {"retain": "Delete"}, "pausePolicy": {"graceSeconds": 15}}))
    Job(platform, kubectl, "doomed").wait_step(1)
    fault.strikes(f"namespace deleted during a run, {operator.replace('-', ' ')}")
    if operator == "operator-down":
        platform.kubectl.within(SYSTEM_NAMESPACE)("scale", "deployment/finetune-operator", "--replicas=0")
        eventually(
            lambda: not platform.kubectl.within(SYSTEM_NAMESPACE).items("pods", "app.kubernetes.io/component=operator") or None,
            within=60,
            what="no operator",
        )
        platform.kubectl("delete", "namespace", name, "--wait=false")
        eventually(lambda: not kubectl.items("pods") or None, within=90, what="no pods while the operator is away")
        platform.kubectl.within(SYSTEM_NAMESPACE)("scale", "deployment/finetune-operator", "--replicas=1")
    else:
        platform.kubectl("delete", "namespace", name, "--wait=false")
    eventually(lambda: platform.kubectl.get("namespace", name) is None or None, within=180, what=f"namespace {name} gone")
    fault.recovered()
    fault.ends("namespace gone, nothing stuck")


def _none_left(kubectl: Kubectl, kind: str, job: str) -> bool:
    return not kubectl.items(kind, f"finetune.dev/job={job}")

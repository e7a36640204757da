"""Two operators on a real API server: one acts, and a leader that was stopped changes nothing when it wakes (design §4, HA)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import TLS_SECRET
from tests.support.jobs import make_job
from tests.support.platform import SYSTEM_NAMESPACE, Kubectl, eventually

OPERATOR = "deployment/finetune-operator"
NOWHERE = {"finetune.dev/test": "nowhere"}


@pytest.fixture
def namespace(kubeconfig: Path, crds: None) -> Iterator[Kubectl]:
    """A namespace of the test's own; an installed operator is away meanwhile."""
    kubectl = Kubectl(kubeconfig)
    system = kubectl.within(SYSTEM_NAMESPACE)
    installed = system.get("deployment", "finetune-operator")
    name = f"leaders-{uuid.uuid4().hex[:8]}"
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    inside = kubectl.within(name)
    inside.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": TLS_SECRET}})
    if installed is not None:
        system("scale", OPERATOR, "--replicas=0")
        system("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=operator", "--timeout=60s")
    yield inside
    kubectl("delete", "namespace", name, "--wait=false")
    if installed is not None:
        system("scale", OPERATOR, f"--replicas={installed['spec']['replicas']}")
        system("rollout", "status", OPERATOR, "--timeout=120s")


class Operator:
    """An operator as a process of this machine."""

    def __init__(self, kubectl: Kubectl, identity: str, log: Path, stack: ExitStack) -> None:
        settings = {
            "IDENTITY": identity,
            "NAMESPACE": kubectl.namespace,
            "WATCH_NAMESPACES": kubectl.namespace,
            "TRAINER_IMAGE": "none.invalid/trainer",
            "STORAGE_BUCKET": "finetune",
            "PROGRESS_URL": "https://127.0.0.1:8443",
            "PROGRESS_PORT": "0",
            "HTTP_PORT": "0",
            "LEASE_SECONDS": "6",
            "RENEW_DEADLINE_SECONDS": "4",
            "RETRY_SECONDS": "1",
        }
        environment = {**kubectl.environment, **{f"FINETUNE_OPERATOR_{name}": value for name, value in settings.items()}}
        self.identity, self.log = identity, log
        self.process = subprocess.Popen(
            [sys.executable, "-m", "finetune_operator", "run"],
            env=environment,
            stdout=stack.enter_context(log.open("w")),
            stderr=subprocess.STDOUT,
        )
        stack.callback(self.process.wait)
        stack.callback(self.end)

    def end(self) -> None:
        """Kill it, stopped or not."""
        if self.process.poll() is None:
            self.process.kill()


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
def two(namespace: Kubectl, tmp_path: Path) -> Iterator[tuple[Operator, Operator]]:
    """(leader, standby)."""
    with ExitStack() as stack:
        operators = [Operator(namespace, name, tmp_path / f"{name}.log", stack) for name in ("one", "two")]
        leader = eventually(lambda: holder(namespace) or None, within=60, what="a leader")
        operators.sort(key=lambda operator: operator.identity != leader)
        yield operators[0], operators[1]


def job_spec() -> dict[str, Any]:
    """A job no node can take."""
    return make_job("led", {"resources": {"nodeSelector": NOWHERE}})


def test_a_leader_that_wakes_changes_nothing(namespace: Kubectl, two: tuple[Operator, Operator]) -> None:
    """SIGSTOP the leader; the other one takes over within 20 s and pauses, resumes, pauses; the first wakes and leaves without a write."""
    leader, standby = two
    namespace.apply(job_spec())
    eventually(lambda: run_of(namespace) == ["led-r1"] or None, within=60, what="the first run")
    os.kill(leader.process.pid, signal.SIGSTOP)
    eventually(lambda: holder(namespace) == standby.identity or None, within=60, what="the other one leads")
    for replicas, expected in ((0, []), (1, ["led-r2"]), (0, [])):
        namespace("scale", "finetunejob/led", f"--replicas={replicas}")
        eventually(lambda wanted=expected: run_of(namespace) == wanted or None, within=90, what=f"runs {expected}")  # type: ignore[misc]
    eventually(lambda: phase(namespace) == "Paused" or None, within=60, what="Paused")
    before = everything(namespace)
    os.kill(leader.process.pid, signal.SIGCONT)
    assert leader.process.wait(60) != 0, leader.log.read_text()
    assert everything(namespace) == before
    assert holder(namespace) == standby.identity
    assert standby.process.poll() is None

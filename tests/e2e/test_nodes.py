"""A node that vanishes: an object without a kubelet (OP-11)."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest

from finetune_api.constants import TLS_SECRET
from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.env import PROGRESS_AUDIENCE
from finetune_api.contract.progress import FineTuneProgress, ProgressPost, TrainerStatus, progress_path
from finetune_api.contract.store import attempt_key
from tests.e2e.conftest import JobFactory, Untouched, losses
from tests.support.platform import SYSTEM_NAMESPACE, Job, Kubectl, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e
LABEL = "finetune.dev/e2e-vanishing"
NODE = "vanishing"
STEPS = 500
SPEC: dict[str, Any] = {"training": {"maxSteps": STEPS}}


@pytest.fixture
def nodes(platform: Platform) -> Iterator[Kubectl]:
    """The cluster's nodes; without the vanishing one and its label afterwards."""
    kubectl = platform.kubectl
    yield kubectl
    kubectl("delete", "node", NODE, "--ignore-not-found")
    for node in kubectl.items("nodes"):
        kubectl("label", "node", node["metadata"]["name"], f"{LABEL}-")


def add_vanishing_node(nodes: Kubectl) -> None:
    """A node that says Ready once and never again: within a minute it counts as unreachable."""
    taint = {"key": LABEL, "value": "yes", "effect": "NoSchedule"}  # pods of other tests must not come here
    nodes.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {LABEL: "yes"}}, "spec": {"taints": [taint]}})
    room = {"cpu": "8", "memory": "32Gi", "pods": "10", "ephemeral-storage": "100Gi"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "was here"}
    status = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
    nodes("patch", "node", NODE, "--subresource=status", "--type=merge", "-p", json.dumps(status))


def act_as_kubelet(kubectl: Kubectl, pod: str) -> None:
    """Say what a kubelet would say of a pod it has just started."""
    state = {
        "name": "trainer",
        "ready": True,
        "restartCount": 0,
        "image": "x",
        "imageID": "x",
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    }
    status: dict[str, Any] = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [state]}
    kubectl("patch", "pod", pod, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def post_of(platform: Platform, job: Job, pod: dict[str, Any], run: int) -> int:
    """Answer of the operator to a progress report of a pod, made with the pod's own token."""
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod['metadata']['name']}", f"--audience={PROGRESS_AUDIENCE}")
    token = job.kubectl("create", "token", pod["spec"]["serviceAccountName"], *bound).strip()
    status = TrainerStatus(last_updated_time=datetime.now(UTC).isoformat())
    progress = FineTuneProgress(contract_version=CONTRACT_VERSION, run=run, attempt=1, phase="Training", step=STEPS)
    certificate = platform.kubectl.within(SYSTEM_NAMESPACE).get("secret", TLS_SECRET)
    assert certificate is not None
    trusted = ssl.create_default_context(cadata=base64.b64decode(certificate["data"]["ca.crt"]).decode())
    trusted.check_hostname = False  # reached through a forwarded port
    with platform.kubectl.within(SYSTEM_NAMESPACE).port_forward("deployment/finetune-operator", 8443) as port:
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusted)
        with contextlib.closing(connection):
            body = ProgressPost(trainer_status=status, finetune=progress).to_json()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request("POST", progress_path(job.kubectl.namespace, job.name), body, headers)
            return connection.getresponse().status


def test_a_vanished_node_is_left_behind(
    platform: Platform, run_job: JobFactory, untouched: Untouched, namespace: Kubectl, nodes: Kubectl, fault: Fault
) -> None:
    """NodeLost: the next run goes on elsewhere from the checkpoint without waiting for the lost pod, which is fenced, never forced away."""
    reference = untouched(SPEC)
    job = run_job("on-vanishing", SPEC)
    job.wait_step(1)
    change(job, {"desiredState": "Stopped"})
    reached = job.wait_phase("Stopped")["checkpoints"]["latest"]["step"]
    assert 0 < reached < STEPS
    tolerations = [{"key": LABEL, "operator": "Exists"}]
    add_vanishing_node(nodes)
    change(job, {"desiredState": "Running", "resources": {"nodeSelector": {LABEL: "yes"}, "tolerations": tolerations}})
    pod = eventually(lambda: next((p for p in job.pods() if p["spec"].get("nodeName") == NODE), None), within=60, what="a pod on the node")
    act_as_kubelet(namespace, pod["metadata"]["name"])
    fault.strikes("a node vanishes (no kubelet answers)")
    for node in nodes.items("nodes"):
        if node["metadata"]["name"] != NODE:
            nodes("label", "node", node["metadata"]["name"], f"{LABEL}=yes")
    job.wait_training(run=3, within=300)
    fault.recovered()
    assert post_of(platform, job, pod, run=2) == HTTPStatus.FORBIDDEN, (
        "its Job is gone: should the lost pod come back, it is not listened to"
    )
    newest = json.loads(job.read(attempt_key(2)))
    assert newest["run"] == 3, "the attempt is the new run's: the store takes no checkpoint of an older one"
    final = job.wait_phase("Succeeded", within=420)
    assert final["run"] == 3
    assert [attempt.get("outcome") for attempt in final["attempts"]][1] == "NodeLost"
    assert final["attempts"][-1]["fromStep"] == reached
    assert final.get("usage", {}).get("lostSteps", 0) == 0, "nothing was trained on the lost node"
    assert final.get("retry", {}).get("used", 0) == 0, "a lost node is a disruption: not counted"
    assert losses(job) == losses(reference)
    lost = [p for p in job.pods() if p["metadata"]["uid"] == pod["metadata"]["uid"]]
    assert lost, "the lost pod was not deleted by force"
    fault.ends_with(final)


def change(job: Job, spec: dict[str, Any]) -> None:
    """Edit the spec."""
    job.kubectl("patch", "finetunejob", job.name, "--type=merge", "-p", json.dumps({"spec": spec}))

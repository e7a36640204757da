"""A node that vanishes: an object without a kubelet (OP-11)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.platform import Kubectl, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e
LABEL = "finetune.dev/e2e-vanishing"
NODE = "vanishing"


@pytest.fixture
def vanishing_node(platform: Platform) -> Iterator[Kubectl]:
    """A node that said Ready once and never again."""
    kubectl = platform.kubectl
    taint = {"key": LABEL, "value": "yes", "effect": "NoSchedule"}  # pods of other tests must not come here
    kubectl.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE, "labels": {LABEL: "yes"}}, "spec": {"taints": [taint]}})
    room = {"cpu": "8", "memory": "32Gi", "pods": "10", "ephemeral-storage": "100Gi"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "was here"}
    kubectl(
        "patch",
        "node",
        NODE,
        "--subresource=status",
        "--type=merge",
        "-p",
        json.dumps({"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}),
    )
    yield kubectl
    kubectl("delete", "node", NODE, "--ignore-not-found")
    for node in kubectl.items("nodes"):
        kubectl("label", "node", node["metadata"]["name"], f"{LABEL}-")


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


def test_a_vanished_node_is_left_behind(run_job: JobFactory, namespace: Kubectl, vanishing_node: Kubectl, fault: Fault) -> None:
    """NodeLost: the next run starts elsewhere without waiting for the lost pod, which is never forced away."""
    tolerations = [{"key": LABEL, "operator": "Exists"}]
    resources = {"nodeSelector": {LABEL: "yes"}, "tolerations": tolerations}
    job = run_job("on-vanishing", {"resources": resources, "training": {"maxSteps": 5}})
    pod = eventually(lambda: next((p for p in job.pods() if p["spec"].get("nodeName") == NODE), None), within=60, what="a pod on the node")
    act_as_kubelet(namespace, pod["metadata"]["name"])
    fault.strikes("a node vanishes (no kubelet answers)")
    for node in vanishing_node.items("nodes"):
        if node["metadata"]["name"] != NODE:
            vanishing_node("label", "node", node["metadata"]["name"], f"{LABEL}=yes")
    job.wait_training(run=2, within=300)
    fault.recovered()
    final = job.wait_phase("Succeeded", within=420)
    assert final["run"] == 2
    assert final["attempts"][0]["outcome"] == "NodeLost"
    assert final.get("retry", {}).get("used", 0) == 0, "a lost node is a disruption: not counted"
    lost = [p for p in job.pods() if p["metadata"]["uid"] == pod["metadata"]["uid"]]
    assert lost, "the lost pod was not deleted by force"
    fault.ends_with(final)

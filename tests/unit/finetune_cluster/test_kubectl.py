import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from finetune_cluster.kubectl import Kubectl
from finetune_cluster.waiting import NotYetError

HEARTBEAT = "2026-01-01T10:00:00Z"


def make_node(*, ready: str = "True", taints: list[dict[str, str]] | None = None, gpus: str | None = None) -> dict[str, Any]:
    capacity = {"cpu": "2"} | ({"nvidia.com/gpu": gpus} if gpus else {})
    return {
        "metadata": {"name": "one"},
        "spec": {"taints": taints or []},
        "status": {"capacity": capacity, "conditions": [{"type": "Ready", "status": ready, "lastHeartbeatTime": HEARTBEAT}]},
    }


@pytest.fixture
def kubectl(tmp_path: Path) -> Kubectl:
    """Return a kubectl that answers with the file `nodes` and writes its arguments to `calls`."""
    program = tmp_path / "kubectl"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\ncat {tmp_path}/nodes\n')
    program.chmod(0o755)
    return Kubectl(program, tmp_path / "kubeconfig")


def answer(kubectl: Kubectl, *nodes: dict[str, Any]) -> None:
    (kubectl.kubeconfig.parent / "nodes").write_text(json.dumps({"items": list(nodes)}))


def calls(kubectl: Kubectl) -> list[str]:
    return (kubectl.kubeconfig.parent / "calls").read_text().splitlines()


@pytest.mark.parametrize(
    "nodes",
    [
        [],
        [make_node(ready="False")],
        [make_node(), make_node(ready="Unknown")],
        [make_node(taints=[{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}])],
    ],
    ids=["none", "not ready", "one of two", "taint not yet removed"],
)
def test_nodes_are_waited_for_until_pods_can_be_placed(kubectl: Kubectl, nodes: list[dict[str, Any]]) -> None:
    answer(kubectl, *nodes)
    with pytest.raises(NotYetError):
        kubectl.probe_nodes()


def test_what_a_node_said_before_its_kubelet_was_restarted_does_not_count(kubectl: Kubectl) -> None:
    answer(kubectl, make_node())
    heartbeat = dt.datetime.fromisoformat(HEARTBEAT)
    kubectl.probe_nodes(since=heartbeat)
    with pytest.raises(NotYetError):
        kubectl.probe_nodes(since=heartbeat + dt.timedelta(seconds=1))


@pytest.mark.parametrize(("there", "patched"), [("8", False), ("4", True), (None, True)])
def test_gpus_are_given_to_nodes_that_lack_them(kubectl: Kubectl, there: str | None, patched: bool) -> None:
    answer(kubectl, make_node(gpus=there))
    kubectl.give_gpus(8)
    assert any("patch node one --subresource=status" in call for call in calls(kubectl)) is patched


def test_only_the_named_kubeconfig_is_used(kubectl: Kubectl) -> None:
    answer(kubectl, make_node())
    kubectl.probe_nodes()
    assert all(call.startswith(f"--kubeconfig {kubectl.kubeconfig}") for call in calls(kubectl))

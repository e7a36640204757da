"""Speaks to a cluster through kubectl, always with the kubeconfig that is named and never with the user's own."""

import datetime as dt
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_cluster.shell import CommandError, run
from finetune_cluster.waiting import NotYetError

GPU_RESOURCE = "nvidia.com/gpu"
_NOT_READY_TAINT = "node.kubernetes.io/not-ready"
_FIELD_MANAGER = "finetune-cluster"


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl for one cluster."""

    program: Path | str
    kubeconfig: Path

    def __call__(self, *words: str, stdin: str | None = None) -> str:
        """Run kubectl and return its standard output."""
        return run([self.program, "--kubeconfig", self.kubeconfig, "--request-timeout=20s", *words], stdin=stdin, timeout_seconds=60)

    def apply(self, document: dict[str, Any]) -> None:
        """Make the cluster hold an object, or a list of them, as given."""
        self("apply", "--server-side", f"--field-manager={_FIELD_MANAGER}", "--force-conflicts", "-f", "-", stdin=json.dumps(document))

    def get(self, *words: str) -> dict[str, Any]:
        """Read an object or a list of objects."""
        found: dict[str, Any] = json.loads(self("get", *words, "-o", "json"))
        return found

    def probe_api(self) -> None:
        """Raise `NotYetError` unless the API server is ready."""
        try:
            self("get", "--raw", "/readyz")
        except CommandError as error:
            raise NotYetError(f"the API server is not ready: {error}") from error

    def probe_nodes(self, *, since: dt.datetime | None = None) -> None:
        """Raise `NotYetError` unless there is a node and every node is ready, and has said so since a given time."""
        nodes = self.get("nodes")["items"]
        waiting = [node["metadata"]["name"] for node in nodes if not _is_ready(node, since)]
        if waiting or not nodes:
            raise NotYetError(f"nodes not ready: {', '.join(waiting) or 'none has registered'}")

    def give_gpus(self, count: int) -> None:
        """Make every node report some GPUs. Pods that ask for them are scheduled and started; there is no device behind them."""
        quantities = {GPU_RESOURCE: str(count)}
        patch = json.dumps({"status": {"capacity": quantities, "allocatable": quantities}})
        for node in self.get("nodes")["items"]:
            if node["status"].get("capacity", {}).get(GPU_RESOURCE) != str(count):
                self("patch", "node", node["metadata"]["name"], "--subresource=status", "--type=merge", f"--patch={patch}")


def _is_ready(node: dict[str, Any], since: dt.datetime | None) -> bool:
    """Whether pods can be placed on a node: it says it is ready, and the controllers have seen that."""
    says_so = any(
        condition["type"] == "Ready"
        and condition["status"] == "True"
        and (since is None or dt.datetime.fromisoformat(condition["lastHeartbeatTime"]) >= since)
        for condition in node["status"].get("conditions", [])
    )
    return says_so and not any(taint["key"] == _NOT_READY_TAINT for taint in node["spec"].get("taints", []))

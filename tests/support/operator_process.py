"""The operator as a process of this machine, beside a real API server."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.support.platform import Kubectl


class Operator:
    """An operator as a process of this machine."""

    def __init__(
        self, kubectl: Kubectl, identity: str, log: Path, stack: ExitStack, *, kubeconfig: Path | None = None, **more: str
    ) -> None:
        """Looks after the namespace of ``kubectl``, by ``kubeconfig`` where given; ``more`` settings by their names."""
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
            **more,
        }
        reached = {"KUBECONFIG": str(kubeconfig)} if kubeconfig is not None else {}
        environment = {**kubectl.environment, **reached, **{f"FINETUNE_OPERATOR_{name}": value for name, value in settings.items()}}
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

"""Flux's source-controller and kustomize-controller as processes of this machine, against the cluster under test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_cluster.gobuild import KUSTOMIZE_CONTROLLER, SOURCE_CONTROLLER, module_folder
from finetune_cluster.home import Home
from tests.support.background import background
from tests.support.install import cluster_tool, tool_path
from tests.support.platform import ROOT, Kubectl, eventually
from tests.support.ports import free_port

EXAMPLES = ROOT / "deploy" / "flux"
NAMESPACE = "flux-system"
CRDS = {SOURCE_CONTROLLER: "github.com/fluxcd/source-controller", KUSTOMIZE_CONTROLLER: "github.com/fluxcd/kustomize-controller"}


@dataclass(frozen=True)
class Flux:
    """The controllers and what is asked of them."""

    kubectl: Kubectl
    """Within their namespace."""
    log: Path

    def follow(self, url: str) -> None:
        """Make the repository of the examples known under another address."""
        self.kubectl.apply(_changed(_example("gitrepository"), url=url))

    def add(self, example: str, name: str, **changes: Any) -> str:
        """Apply one of the Kustomizations in deploy/flux under a name and with changes to its spec; returns the name."""
        document = _changed(_example(example), **changes)
        self.kubectl.apply(document | {"metadata": document["metadata"] | {"name": name}})
        return name

    def fetch(self, commit: str) -> None:
        """Let Flux look at the repository, as its command `flux reconcile source git` does, until it has a commit."""
        self._request("gitrepository", "ml")
        eventually(
            lambda: self._revision("gitrepository", "ml") == f"main@sha1:{commit}", within=60, what=f"commit {commit} as an artifact"
        )

    def reconcile(self, name: str) -> None:
        """Let Flux apply what it has once more, and wait until it did."""
        token = self._request("kustomization", name)
        eventually(
            lambda: self.status("kustomization", name).get("lastHandledReconcileAt") == token, within=120, what=f"{name} handled {token}"
        )

    def applied(self, name: str, commit: str, *, within: float = 120) -> None:
        """Wait until a Kustomization is ready with a commit."""

        def check() -> bool:
            status = self.status("kustomization", name)
            ready = condition(status, "Ready")
            assert ready.get("status") == "True", f"{name}: {status}"
            return bool(status.get("lastAppliedRevision") == f"main@sha1:{commit}")

        eventually(check, within=within, what=f"{name} is ready with {commit}")

    def status(self, kind: str, name: str) -> dict[str, Any]:
        """Status of an object of Flux."""
        found = self.kubectl.get(kind, name)
        assert found is not None
        return dict(found.get("status", {}))

    def _revision(self, kind: str, name: str) -> str:
        return str(self.status(kind, name).get("artifact", {}).get("revision", ""))

    def _request(self, kind: str, name: str) -> str:
        token = uuid.uuid4().hex
        self.kubectl("annotate", "--overwrite", kind, name, f"reconcile.fluxcd.io/requestedAt={token}")
        return token


def condition(status: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """A condition by its type; empty when absent."""
    return next((dict(found) for found in status.get("conditions", []) if found["type"] == kind), {})


@contextmanager
def run(kubectl: Kubectl, directory: Path) -> Iterator[Flux]:
    """Install Flux's CRDs, from the very modules the controllers are built of, and run the controllers until the block ends."""
    cluster_tool("tools", *(program.name for program in CRDS))
    folders = [str(module_folder(program, module, Home.of(os.environ)) / "config" / "crd" / "bases") for program, module in CRDS.items()]
    with ExitStack() as stack:
        for folder in folders:
            stack.callback(kubectl, "delete", "--ignore-not-found", "--wait=false", "-f", folder)
            kubectl("apply", "--server-side", "--force-conflicts", "-f", folder)
        kubectl("wait", "--for=condition=Established", "crd/gitrepositories.source.toolkit.fluxcd.io", "--timeout=60s")
        kubectl("wait", "--for=condition=Established", "crd/kustomizations.kustomize.toolkit.fluxcd.io", "--timeout=60s")
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        stack.callback(kubectl, "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
        flux = Flux(kubectl.within(NAMESPACE), directory / "flux.log")
        store = free_port()
        storage = [f"--storage-path={directory}", f"--storage-addr=127.0.0.1:{store}", f"--storage-adv-addr=127.0.0.1:{store}"]
        # A commit ends the wait for the health of the one before: see docs/gitops.md.
        gates = ["--feature-gates=CancelHealthCheckOnNewRevision=true", "--requeue-dependency=1s"]
        for program, flags in ((SOURCE_CONTROLLER, storage), (KUSTOMIZE_CONTROLLER, gates)):
            stack.enter_context(_controller(kubectl, program.name, flags, flux.log))
        # While the controllers still run: they take their finalizers away.
        stack.callback(flux.kubectl, "delete", "kustomization,gitrepository", "--all", "--timeout=120s")
        yield flux


@contextmanager
def _controller(kubectl: Kubectl, name: str, flags: list[str], log: Path) -> Iterator[None]:
    health = free_port()
    own = ("--metrics-addr=0", f"--health-addr=127.0.0.1:{health}", "--watch-all-namespaces=false")
    command: list[str | Path] = [tool_path(name), *own, *flags]
    environment = {**kubectl.environment, "RUNTIME_NAMESPACE": NAMESPACE}
    with background(command, log, environment, health=f"http://127.0.0.1:{health}/readyz"):
        yield


def _example(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")))


def _changed(document: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return document | {"spec": document["spec"] | changes}

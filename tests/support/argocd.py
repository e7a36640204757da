"""Argo CD's application controller and repository server as processes of this machine, against the cluster under test."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from finetune_cluster.gobuild import ARGOCD, module_folder
from finetune_cluster.home import Home
from tests.support.background import background
from tests.support.install import cluster_tool, tool_path
from tests.support.platform import ROOT, Kubectl, eventually
from tests.support.ports import free_port

EXAMPLES = ROOT / "deploy" / "argocd"
NAMESPACE = "gitops-argocd"
REFRESH = "argocd.argoproj.io/refresh"
MODULE = "github.com/argoproj/argo-cd/v3"
CONFIG_MAPS = ("argocd-cm", "argocd-rbac-cm", "argocd-gpg-keys-cm", "argocd-ssh-known-hosts-cm", "argocd-tls-certs-cm")


@dataclass(frozen=True)
class ArgoCD:
    """The controller and what is asked of it."""

    kubectl: Kubectl
    """Within its namespace."""
    log: Path

    def follow(self, name: str, url: str, *, path: str, namespace: str, people_decide_on: Sequence[str]) -> None:
        """Apply the application in deploy/argocd with another repository, and with these of its ignored fields."""
        document: dict[str, Any] = yaml.safe_load((EXAMPLES / "application.yaml").read_text(encoding="utf-8"))
        spec = document["spec"]
        document["metadata"] |= {"name": name, "namespace": NAMESPACE}
        spec["source"] |= {"repoURL": url, "path": path}
        spec["destination"] |= {"namespace": namespace}
        (ignored,) = spec["ignoreDifferences"]
        others = {"/spec/replicas", "/spec/suspend", "/spec/desiredState"} - set(people_decide_on)
        assert others <= set(ignored["jsonPointers"])
        ignored["jsonPointers"] = [pointer for pointer in ignored["jsonPointers"] if pointer not in others]
        self.kubectl.apply(document)

    def synced(self, name: str, commit: str, health: str, *, within: float = 180) -> None:
        """Let Argo CD look at the repository, and wait until a commit is synced and has this health."""
        self.refresh(name)

        def check() -> bool:
            status = self.status(name)
            sync, found = status.get("sync", {}), status.get("health", {}).get("status")
            assert (sync.get("status"), sync.get("revision"), found) == ("Synced", commit, health), f"{name}: {status}"
            return True

        eventually(check, within=within, what=f"{name} is {health} at {commit}")

    def refresh(self, name: str) -> None:
        """What the button does: compare Git with the cluster now; returns when that was done."""
        self.kubectl("annotate", "--overwrite", "application", name, f"{REFRESH}=normal")
        eventually(lambda: self._is_compared(name), within=120, what=f"{name} was compared")

    def _is_compared(self, name: str) -> bool:
        """Argo CD takes the annotation away with the result; ``reconciledAt`` counts whole seconds."""
        found = self.kubectl.get("application", name)
        assert found is not None
        return REFRESH not in found["metadata"].get("annotations", {}) and "reconciledAt" in found.get("status", {})

    def status(self, name: str) -> dict[str, Any]:
        """Status of an application."""
        found = self.kubectl.get("application", name)
        assert found is not None
        return dict(found.get("status", {}))


@contextmanager
def run(kubectl: Kubectl, directory: Path) -> Iterator[ArgoCD]:
    """Install Argo CD's CRDs and settings, the health of our jobs as docs/gitops.md says, and run it until the block ends."""
    cluster_tool("tools", ARGOCD.name)
    manifests = module_folder(ARGOCD, MODULE, Home.of(os.environ)) / "manifests" / "crds"
    with ExitStack() as stack:
        for crd in ("application-crd.yaml", "appproject-crd.yaml"):
            stack.callback(kubectl, "delete", "--ignore-not-found", "--wait=false", "-f", str(manifests / crd))
            kubectl("apply", "--server-side", "--force-conflicts", "-f", str(manifests / crd))
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        stack.callback(kubectl, "delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
        argocd = ArgoCD(kubectl.within(NAMESPACE), directory / "argocd.log")
        _configure(argocd.kubectl)
        environment = _environment(kubectl, directory)
        redis, repository = free_port(), free_port()
        stack.enter_context(background([tool_path("argocd-redis"), f"--address=127.0.0.1:{redis}"], argocd.log, environment))
        cache = f"--redis=127.0.0.1:{redis}"
        metrics = free_port()
        server: list[str | Path] = [
            tool_path("argocd-repo-server"), cache, "--disable-tls", "--client-ca-path=", "--address=127.0.0.1", f"--port={repository}",
            "--metrics-address=127.0.0.1", f"--metrics-port={metrics}",
        ]  # fmt: skip
        stack.enter_context(background(server, argocd.log, environment, health=f"http://127.0.0.1:{metrics}/metrics"))
        metrics = free_port()
        controller: list[str | Path] = [
            tool_path("argocd-application-controller"), cache, f"--repo-server=127.0.0.1:{repository}", "--repo-server-plaintext",
            f"--namespace={NAMESPACE}", f"--metrics-port={metrics}", "--self-heal-timeout-seconds=1",
        ]  # fmt: skip
        stack.enter_context(background(controller, argocd.log, environment, health=f"http://127.0.0.1:{metrics}/healthz"))
        stack.callback(argocd.kubectl, "delete", "application", "--all", "--timeout=120s")
        yield argocd


def _configure(kubectl: Kubectl) -> None:
    labels = {"app.kubernetes.io/part-of": "argocd"}
    for name in CONFIG_MAPS:
        kubectl.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": labels}})
    secret = {"server.secretkey": uuid.uuid4().hex}
    kubectl.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "argocd-secret", "labels": labels}, "stringData": secret})
    kubectl("patch", "configmap", "argocd-cm", "--patch-file", str(EXAMPLES / "argocd-cm-patch.yaml"))
    kubectl("wait", "--for=condition=Established", "crd/applications.argoproj.io", "crd/appprojects.argoproj.io", "--timeout=60s")
    anything = {
        "sourceRepos": ["*"],
        "destinations": [{"server": "*", "namespace": "*"}],
        "clusterResourceWhitelist": [{"group": "*", "kind": "*"}],
    }
    kubectl.apply({"apiVersion": "argoproj.io/v1alpha1", "kind": "AppProject", "metadata": {"name": "default"}, "spec": anything})


def _environment(kubectl: Kubectl, directory: Path) -> dict[str, str]:
    """As Argo CD's own developers run it outside of a cluster; a script that it calls for every commit comes with its module."""
    folders = {"ARGOCD_TLS_DATA_PATH": "tls", "ARGOCD_SSH_DATA_PATH": "ssh", "ARGOCD_GNUPGHOME": "gnupg", "TMPDIR": "tmp"}
    for folder in (*folders.values(), "bin"):
        (directory / folder).mkdir()
    script = directory / "bin" / "git-verify-wrapper.sh"
    script.write_bytes((module_folder(ARGOCD, MODULE, Home.of(os.environ)) / "hack" / script.name).read_bytes())
    script.chmod(0o755)
    paths = {name: str(directory / folder) for name, folder in folders.items()}
    path = f"{script.parent}{os.pathsep}{os.environ['PATH']}"
    return {**kubectl.environment, **paths, "PATH": path, "ARGOCD_FAKE_IN_CLUSTER": "true", "ARGOCD_GPG_ENABLED": "false"}

"""The CRDs of this checkout on the cluster under test, and a namespace with the API server behind it."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.apiserver import ApiServer, proxied
from tests.support.manifests import ROOT

CRD_FILES = sorted((ROOT / "crds").glob("*.yaml"))
FIELD_MANAGER = "finetune-tests"


@pytest.fixture(scope="session")
def crds(kubeconfig: Path) -> Iterator[None]:
    """The committed CRDs are served. Definitions somebody else installed are brought up to date and stay; our own go at the end."""
    names = [yaml.safe_load(file.read_text(encoding="utf-8"))["metadata"]["name"] for file in CRD_FILES]
    missing = [name for name in names if not _exists(kubeconfig, name)]
    for file in CRD_FILES:
        _kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "-f", str(file))
    _kubectl(kubeconfig, "wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in names))
    yield
    for name in missing:
        _kubectl(kubeconfig, "delete", "crd", name, "--wait=true", "--timeout=120s")


@pytest.fixture(scope="module")
def api(kubeconfig: Path, crds: None) -> Iterator[ApiServer]:
    """The API server, with a namespace of its own that is removed afterwards."""
    namespace = f"crd-{uuid.uuid4().hex[:8]}"
    with proxied(kubeconfig, namespace) as server:
        created = server.request("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        assert created.code == 201, created.message
        yield server
        server.request("DELETE", f"/api/v1/namespaces/{namespace}")


def explain(kubeconfig: Path, field: str) -> str:
    """What ``kubectl explain`` says of a field."""
    return _kubectl(kubeconfig, "explain", field)


def get_table(kubeconfig: Path, *arguments: str) -> str:
    """What ``kubectl get`` prints."""
    return _kubectl(kubeconfig, "get", *arguments)


def _exists(kubeconfig: Path, name: str) -> bool:
    return bool(_kubectl(kubeconfig, "get", "crd", name, "--ignore-not-found", "-o", "name").strip())


def _kubectl(kubeconfig: Path, *arguments: str) -> str:
    command = ["kubectl", "--kubeconfig", str(kubeconfig), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout

"""The CRDs of this checkout on the cluster under test, and a namespace with the API server behind it."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.apiserver import ApiServer, proxied
from tests.support.manifests import ROOT

CRD_FILES = {file.stem: file for file in sorted((ROOT / "crds").glob("*.yaml"))}
"""Name of each definition -> its committed file."""
FIELD_MANAGER = "finetune-tests"


@pytest.fixture(scope="session")
def crds(kubeconfig: Path) -> Iterator[None]:
    """The committed CRDs are served. Definitions somebody else installed are brought up to date and stay theirs; our own go at the end."""
    created = [name for name, file in CRD_FILES.items() if _bring_up_to_date(kubeconfig, name, file)]
    _kubectl(kubeconfig, "wait", "--for=condition=Established", "--timeout=60s", *(f"crd/{name}" for name in CRD_FILES))
    yield
    for name in created:
        _kubectl(kubeconfig, "delete", "crd", name, "--wait=true", "--timeout=120s")


def _bring_up_to_date(kubeconfig: Path, name: str, file: Path) -> bool:
    """Whether the definition had to be created.

    The fields of a definition that is there stay with their manager, so that the chart's next upgrade does not conflict with a test.
    """
    found = _kubectl(kubeconfig, "get", "crd", name, "--ignore-not-found", "--show-managed-fields", "-o", "json")
    _kubectl(kubeconfig, "apply", "--server-side", "--force-conflicts", f"--field-manager={FIELD_MANAGER}", "-f", str(file))
    if not found.strip():
        return True
    managers = {"metadata": {"managedFields": json.loads(found)["metadata"]["managedFields"]}}
    _kubectl(kubeconfig, "patch", "crd", name, "--type=merge", "--patch", json.dumps(managers))
    return False


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


def _kubectl(kubeconfig: Path, *arguments: str) -> str:
    command = ["kubectl", "--kubeconfig", str(kubeconfig), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=180)
    assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout

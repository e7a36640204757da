"""Fixtures of the tests against a real API server."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.constants import TLS_SECRET
from tests.support.platform import SYSTEM_NAMESPACE, Kubectl

OPERATOR = "deployment/finetune-operator"


@pytest.fixture(scope="module")
def no_other_operator(kubeconfig: Path) -> Iterator[None]:
    """An installed operator is away meanwhile: two that look after the same namespace would each bring their own CA to it."""
    system = Kubectl(kubeconfig).within(SYSTEM_NAMESPACE)
    installed = system.get("deployment", "finetune-operator")
    if installed is None:
        yield
        return
    system("scale", OPERATOR, "--replicas=0")
    system("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/component=operator", "--timeout=60s")
    yield
    system("scale", OPERATOR, f"--replicas={installed['spec']['replicas']}")
    system("rollout", "status", OPERATOR, "--timeout=120s")


@pytest.fixture
def unattended(kubeconfig: Path, crds: None, no_other_operator: None) -> Iterator[Kubectl]:
    """A namespace of the test's own, that nobody looks after."""
    kubectl = Kubectl(kubeconfig)
    name = f"unattended-{uuid.uuid4().hex[:8]}"
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    inside = kubectl.within(name)
    inside.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": TLS_SECRET}})
    yield inside
    kubectl("delete", "namespace", name, "--wait=false")

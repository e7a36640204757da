"""The test hub (:mod:`tests.support.hub`) as a pod of the cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from tests.support.platform import ROOT, Kubectl

PORT: Final = 8080
CODE_DIR: Final = "/hub"
ROWS_DIR: Final = "/rows"
"""The data set of the namespace."""
_RESTRICTED: Final[dict[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@contextmanager
def hub_pod(namespace: Kubectl, name: str, image: str, command: Sequence[str], *, token: str) -> Iterator[str]:
    """Serve a hub by ``command``, which finds ``hub.py`` in :data:`CODE_DIR`; the name of the Secret with its address and the token."""
    labels = {"app": name}
    container = {
        "name": "hub",
        "image": image,
        "command": list(command),
        "volumeMounts": [{"name": "code", "mountPath": CODE_DIR}, {"name": "rows", "mountPath": ROWS_DIR}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": _RESTRICTED,
    }
    volumes = [{"name": "code", "configMap": {"name": name}}, {"name": "rows", "configMap": {"name": "sft"}}]
    metadata, code = {"name": name}, (ROOT / "tests/support/hub.py").read_text()
    endpoint = f"http://{name}.{namespace.namespace}.svc:{PORT}"
    namespace.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"hub.py": code}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**metadata, "labels": labels},
            "spec": {"containers": [container], "volumes": volumes},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"selector": labels, "ports": [{"port": PORT}]}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"HF_TOKEN": token, "HF_ENDPOINT": endpoint}},
    )
    namespace("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=180s")
    yield name
    namespace("delete", *(f"{kind}/{name}" for kind in ("pod", "service", "configmap", "secret")), "--wait=false")

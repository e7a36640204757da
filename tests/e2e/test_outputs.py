"""A training with everything that can be made of its result: merged, GGUF, pushed to a hub inside the cluster (W-01, W-03, W-04, W-09)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.platform import ROOT, Kubectl, Platform, eventually

pytestmark = pytest.mark.e2e
TOKEN = "may-write"
PORT = 8080
RESTRICTED: dict[str, Any] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}


@pytest.fixture
def hub(platform: Platform, namespace: Kubectl) -> Iterator[Kubectl]:
    """A server that speaks the hub's protocol, and the Secret to write to it."""
    labels = {"app": "hub"}
    code = (ROOT / "tests/support/hub.py").read_text()
    container = {
        "name": "hub",
        "image": platform.images["trainer"],
        "command": ["python3", "/hub/hub.py", str(PORT), TOKEN],
        "volumeMounts": [{"name": "code", "mountPath": "/hub"}],
        "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
        "securityContext": RESTRICTED,
    }
    namespace.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "hub"}, "data": {"hub.py": code}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "hub", "labels": labels},
            "spec": {"containers": [container], "volumes": [{"name": "code", "configMap": {"name": "hub"}}]},
        },
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "hub"}, "spec": {"selector": labels, "ports": [{"port": PORT}]}},
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "hub-write"},
            "stringData": {"HF_TOKEN": TOKEN, "HF_ENDPOINT": f"http://hub.{namespace.namespace}.svc:{PORT}"},
        },
    )
    namespace("wait", "--for=condition=Ready", "pod/hub", "--timeout=180s")
    yield namespace
    namespace("delete", "pod/hub", "service/hub", "configmap/hub", "--wait=false")


def test_a_tiny_job_with_merge_gguf_and_push(run_job: JobFactory, hub: Kubectl, tmp_path: Path) -> None:
    """Exporting after the training pods ended; every form in status, in the store and in the repository."""
    job = run_job(
        "exported",
        {
            "training": {"maxSteps": 3},
            "dataset": {"evalRatio": 0.1},
            "output": {
                "merge": True,
                "export": {"gguf": {"enabled": True, "quant": ["Q8_0"]}, "samples": 2, "memory": "3Gi"},
                "push": {"enabled": True, "repoId": "team/helper", "secretRef": {"name": "hub-write"}},
                "modelCard": {"license": "apache-2.0"},
            },
        },
    )
    job.wait_phase("Exporting")
    eventually(lambda: hub.items("pods", "finetune.dev/component=export") or None, within=60, what="the export's pod")
    (pod,) = hub.items("pods", "finetune.dev/component=export")
    assert pod["spec"]["containers"][0]["args"] == ["export"]
    status = job.wait_phase("Succeeded")
    assert job.condition("Exported").get("status") == "True", job.story()
    outputs = {each["type"]: each for each in status["artifacts"]["outputs"]}
    assert set(outputs) == {"merged", "gguf", "hub"}
    files = job.objects()
    assert {"final/merged/model.safetensors", "final/gguf/exported-Q8_0.gguf", "final/export.json", "final/README.md"} <= set(files)
    assert files["final/gguf/exported-Q8_0.gguf"] == outputs["gguf"]["sizeBytes"]
    answers = json.loads(job.read("final/samples.json"))
    assert [each["split"] for each in answers] == ["train", "train", "eval", "eval"]
    lineage = json.loads(job.read("lineage.json"))
    assert [attempt["attempt"] for attempt in lineage["attempts"]] == [1]
    path = "/api/models/team/helper"
    script = (
        f"import json,urllib.request as u; r=u.Request('http://hub:{PORT}{path}', headers={{'Authorization': 'Bearer {TOKEN}'}}); "
        "print(' '.join(s['rfilename'] for s in json.load(u.urlopen(r))['siblings']))"
    )
    pushed = set(hub("exec", "hub", "--", "python3", "-c", script).split())
    assert {"model.safetensors", "adapter/adapter_model.safetensors", "exported-Q8_0.gguf", "README.md"} <= pushed

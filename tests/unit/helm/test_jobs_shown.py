"""Every FineTuneJob the chart shows or runs is a valid one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from finetune_api.constants import API_VERSION, KIND, MAX_JOB_NAME
from tests.unit.helm.chart import CHART, MATRIX, ROOT, Helm, Manifest, of_kind, one

CRD: dict[str, Any] = yaml.safe_load((ROOT / "crds" / "finetunejobs.finetune.dev.yaml").read_text())
SCHEMA: dict[str, Any] = CRD["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
PRESETS = {path.stem for path in (ROOT / "crds" / "presets").glob("*.yaml")}


def check(job: Manifest) -> None:
    """The CRD's schema has nothing against a job, and its preset is one of those shipped."""
    strict = json.loads(json.dumps(SCHEMA), object_hook=_closed)
    assert (job["apiVersion"], job["kind"]) == (API_VERSION, KIND)
    assert [error.message for error in Draft202012Validator(strict).iter_errors(job["spec"])] == []
    assert job["spec"].get("presetRef", {"name": "sft"})["name"] in PRESETS
    assert len(job["metadata"]["name"]) <= MAX_JOB_NAME


def _closed(node: dict[str, Any]) -> dict[str, Any]:
    """Refuse unknown fields, as strict field validation of the API server does."""
    return {**node, "additionalProperties": False} if isinstance(node.get("properties"), dict) and node.get("type") == "object" else node


def test_example_of_the_chart() -> None:
    """The annotation that shows the kind in a catalogue."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    for job in yaml.safe_load(chart["annotations"]["artifacthub.io/crdsExamples"]):
        check(job)


@pytest.mark.parametrize("case", ["defaults", "external-store", "namespaced-without-cluster-role"])
def test_first_job_of_the_notes(helm: Helm, case: str) -> None:
    """What a beginner copies from the terminal works."""
    match = re.search(r"<<EOF\n(.*?)\n +EOF", helm.notes(MATRIX[case]), re.DOTALL)
    assert match is not None
    job = yaml.safe_load(match[1])
    check(job)
    assert ("presetRef" in job["spec"]) == (case != "namespaced-without-cluster-role")


def test_job_of_the_helm_test(helm: Helm) -> None:
    """The tiny job is valid, runs on a CPU, and its model and data are where the test puts them."""
    manifests = helm.template({"test": {"resources": {"cpu": "250m", "memory": "2Gi"}, "timeoutSeconds": 300}})
    config = one(manifests, "ConfigMap", "finetune-test")
    job = yaml.safe_load(config["data"]["job.yaml"])
    check(job)
    pod = one(manifests, "Pod", "finetune-test")
    *_, data, bucket, prefix = pod["spec"]["initContainers"][0]["command"]
    assert job["spec"]["model"]["uri"] == f"s3://{bucket}/{prefix}"
    assert job["spec"]["dataset"]["uri"] == f"configmap://{config['metadata']['name']}/train.jsonl"
    assert data.rpartition("/")[2] in config["data"]
    assert job["spec"]["resources"] == {"device": "cpu", "cpu": "250m", "memory": "2Gi"}
    assert pod["spec"]["containers"][0]["command"][-1] == "300"


def test_helm_test_may_touch_its_own_job_only(helm: Helm) -> None:
    """Its ServiceAccount exists for the test alone and has rights on one name."""
    manifests = [m for m in helm.template() if m["metadata"].get("annotations", {}).get("helm.sh/hook") == "test"]
    assert {m["kind"] for m in manifests} == {"ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Pod"}
    (role,) = of_kind(manifests, "Role")
    job = yaml.safe_load(one(manifests, "ConfigMap", "finetune-test")["data"]["job.yaml"])
    assert role["rules"] == [
        {"apiGroups": ["finetune.dev"], "resources": ["finetunejobs"], "verbs": ["create"]},
        {
            "apiGroups": ["finetune.dev"],
            "resources": ["finetunejobs"],
            "resourceNames": [job["metadata"]["name"]],
            "verbs": ["get", "patch", "delete"],
        },
    ]

"""GpuTypes on a real API server: what is stored, what kubectl shows, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, GPU_TYPE_KIND, KIND
from tests.support.apiserver import ApiServer
from tests.support.crds import explain, get_table
from tests.support.manifests import VALID, accepted, job_of

pytestmark = pytest.mark.integration
TYPES = {str(case.document["metadata"]["name"]): case.document for case in accepted(VALID) if case.document["kind"] == GPU_TYPE_KIND}


@pytest.fixture
def gpu_type(api: ApiServer) -> Iterator[dict[str, Any]]:
    """A stored GpuType of the test's own."""
    name = f"own-{uuid.uuid4().hex[:8]}"
    document = {"apiVersion": API_VERSION, "kind": GPU_TYPE_KIND, "metadata": {"name": name}, "spec": TYPES["own-gpu"]["spec"]}
    answer = api.request("POST", api.path(GPU_TYPE_KIND), document, fieldValidation="Strict")
    assert answer.code == 201, answer.message
    yield answer.body
    api.request("DELETE", api.path(GPU_TYPE_KIND, name))


def test_what_is_stored_is_what_was_written(api: ApiServer, gpu_type: dict[str, Any]) -> None:
    """L-02: of defaults only currency and resourceName are filled in."""
    assert gpu_type["spec"] == TYPES["own-gpu"]["spec"]
    least = api.request("POST", api.path(GPU_TYPE_KIND), {**TYPES["least"], "metadata": {"name": "judged-least"}}, dryRun="All")
    assert least.body["spec"] == {**TYPES["least"]["spec"], "currency": "USD", "resourceName": "nvidia.com/gpu"}


def test_kubectl_shows_them(kubeconfig: Path, api: ApiServer, gpu_type: dict[str, Any]) -> None:
    """L-02: the catalogue, with memory and price."""
    header, row = get_table(kubeconfig, "ftgpu", gpu_type["metadata"]["name"]).splitlines()
    assert header.split() == ["NAME", "MEMORY", "CAPABILITY", "HOURLY-RATE", "CURRENCY", "AGE"]
    assert row.split()[1:5] == ["81559Mi", "9.0", "999999.999999", "EUR"]
    assert "Jobs choose it by resources.gpuType" in " ".join(explain(kubeconfig, "gputypes").split())


def test_a_price_is_a_text(api: ApiServer, gpu_type: dict[str, Any]) -> None:
    """A number would lose what a binary fraction cannot hold."""
    path = api.path(GPU_TYPE_KIND, gpu_type["metadata"]["name"])
    assert api.request("PATCH", path, {"spec": {"hourlyRate": "2.50"}}).body["spec"]["hourlyRate"] == "2.50"
    wrong = api.request("PATCH", path, {"spec": {"hourlyRate": 2.5}})
    assert (wrong.code, "spec.hourlyRate" in wrong.message) == (422, True)


def test_a_job_by_name_is_taken_as_it_is(api: ApiServer) -> None:
    """L-02: whether there is such a type is the operator's to say; GPUs for a job on CPU are refused."""
    leaves = {"resources.gpuType": "nobody-made-it", "suspend": True}
    answer = api.request("POST", api.path(KIND), job_of("on-gpus-by-name", leaves), dryRun="All")
    assert answer.code == 201, answer.message
    assert answer.body["spec"]["resources"] == {"gpuType": "nobody-made-it"}
    refused = api.request("POST", api.path(KIND), job_of("on-cpu", {**leaves, "resources.device": "cpu"}), dryRun="All")
    assert (refused.code, "is for GPUs: leave it out" in refused.message) == (422, True)

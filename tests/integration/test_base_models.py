"""BaseModels on a real API server: what is stored, what kubectl shows, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, BASE_MODEL_KIND, KIND
from tests.support.apiserver import ApiServer
from tests.support.crds import explain, get_table
from tests.support.manifests import VALID, accepted, job_of

pytestmark = pytest.mark.integration
MODELS = {str(case.document["metadata"]["name"]): case.document for case in accepted(VALID) if case.document["kind"] == BASE_MODEL_KIND}


@pytest.fixture
def model(api: ApiServer) -> Iterator[dict[str, Any]]:
    """A stored BaseModel of the test's own."""
    name = f"own-{uuid.uuid4().hex[:8]}"
    document = {"apiVersion": API_VERSION, "kind": BASE_MODEL_KIND, "metadata": {"name": name}, "spec": MODELS["own-model"]["spec"]}
    answer = api.request("POST", api.path(BASE_MODEL_KIND), document, fieldValidation="Strict")
    assert answer.code == 201, answer.message
    yield answer.body
    api.request("DELETE", api.path(BASE_MODEL_KIND, name))


def test_what_is_stored_is_what_was_written(api: ApiServer, model: dict[str, Any]) -> None:
    """C-02: of defaults only eligible, deployed and trustRemoteCode are filled in; those of jobs would beat the table's."""
    assert model["spec"] == MODELS["own-model"]["spec"]
    least = api.request("POST", api.path(BASE_MODEL_KIND), {**MODELS["least"], "metadata": {"name": "judged-least"}}, dryRun="All")
    assert least.body["spec"] == {**MODELS["least"]["spec"], "eligible": True, "deployed": True, "trustRemoteCode": False}


def test_kubectl_shows_them(kubeconfig: Path, api: ApiServer, model: dict[str, Any]) -> None:
    """C-03, C-04: the catalogue, with count and eligibility."""
    header, row = get_table(kubeconfig, "ftbm", model["metadata"]["name"]).splitlines()
    assert header.split() == ["NAME", "URI", "TYPE", "PARAMETERS", "ELIGIBLE", "DEPLOYED", "AGE"]
    assert row.split()[1:6] == [model["spec"]["uri"], "VLM", "10000000000000", "false", "false"]
    assert "jobs choose it by model.uri ref:name" in " ".join(explain(kubeconfig, "basemodels.spec").split())
    assert "Unit: tokens" in " ".join(explain(kubeconfig, "basemodels.spec.defaults.training.maxSeqLength").split())


def test_it_can_be_withdrawn(api: ApiServer, model: dict[str, Any]) -> None:
    """C-03; a wrong address is refused with the sentence of the rule."""
    path = api.path(BASE_MODEL_KIND, model["metadata"]["name"])
    assert api.request("PATCH", path, {"spec": {"eligible": False}}).code == 200
    wrong = api.request("PATCH", path, {"spec": {"uri": "hf://org/own@main"}})
    assert (wrong.code, "must name a commit where trustRemoteCode is true" in wrong.message) == (422, True)


def test_a_job_by_name_is_taken_as_it_is(api: ApiServer) -> None:
    """C-02: the name stays in the spec; whether there is such a model is the operator's to say."""
    document = job_of("by-name", {"model.uri": "ref:nobody-made-it", "suspend": True})
    answer = api.request("POST", api.path(KIND), document)
    assert answer.code == 201, answer.message
    assert answer.body["spec"]["model"] == {"uri": "ref:nobody-made-it"}

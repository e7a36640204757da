"""Datasets on a real API server: what is stored, what kubectl shows, what is refused, and whose the status is."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, DATASET_KIND, KIND
from finetune_api.models.dataset import DatasetPhase, DatasetStatus
from finetune_api.models.status import Condition
from finetune_operator.cluster.datasets import dataset_status_document
from tests.support.apiserver import ApiServer
from tests.support.crds import explain, get_table
from tests.support.manifests import VALID, accepted, job_of

pytestmark = pytest.mark.integration
DATASETS = {str(case.document["metadata"]["name"]): case.document for case in accepted(VALID) if case.document["kind"] == DATASET_KIND}
MOMENT = "2026-11-22T08:00:00Z"


@pytest.fixture
def dataset(api: ApiServer) -> Iterator[dict[str, Any]]:
    """A stored Dataset of the test's own."""
    name = f"own-{uuid.uuid4().hex[:8]}"
    document = {"apiVersion": API_VERSION, "kind": DATASET_KIND, "metadata": {"name": name}, "spec": DATASETS["support-chats"]["spec"]}
    answer = api.request("POST", api.path(DATASET_KIND), document, fieldValidation="Strict")
    assert answer.code == 201, answer.message
    yield answer.body
    api.request("DELETE", api.path(DATASET_KIND, name))


def test_what_is_stored_is_what_was_written(dataset: dict[str, Any]) -> None:
    """D-13: nothing is filled into spec; a Dataset that nobody looked at is not taken for a healthy one."""
    assert dataset["spec"] == DATASETS["support-chats"]["spec"]
    assert dataset["status"]["phase"] == "Pending"
    assert {c["type"]: c["status"] for c in dataset["status"]["conditions"]} == {"Ready": "Unknown", "Reconciling": "True"}


def test_kubectl_shows_what_the_operator_found(kubeconfig: Path, api: ApiServer, dataset: dict[str, Any]) -> None:
    """D-04, D-05: readiness, examples and format; the fullest status fits its own schema."""
    name = dataset["metadata"]["name"]
    ready = Condition(type="Ready", status="True", reason="Validated", message="ok", last_transition_time=MOMENT, observed_generation=1)
    status = DatasetStatus(
        observed_generation=1,
        phase=DatasetPhase.READY,
        reason="Validated",
        examples=1200,
        is_whole=True,
        eval_examples=12,
        malformed=3,
        format="prompt-completion",
        columns=[f"column-{n}" for n in range(16)],
        samples=["x" * 512] * 3,
        digest="f" * 64,
        last_validated=MOMENT,
        looks=2,
        looked_at="f" * 16,
        last_handled_request="validate/1",
        conditions=[ready],
    )
    answer = api.request("PATCH", f"{api.path(DATASET_KIND, name)}/status", {"status": dataset_status_document(status)})
    assert answer.code == 200, answer.message
    assert DatasetStatus.model_validate(answer.body["status"]) == status
    header, row = get_table(kubeconfig, "-n", api.namespace, "ftds", name).splitlines()
    assert header.split() == ["NAME", "READY", "PHASE", "EXAMPLES", "FORMAT", "AGE"]
    assert row.split()[:5] == [name, "True", "ReadyForTraining", "1200", "prompt-completion"]
    assert "choose it by dataset.uri ref:name" in " ".join(explain(kubeconfig, "datasets.spec").split())


def test_spec_and_status_are_apart(api: ApiServer, dataset: dict[str, Any]) -> None:
    """Who may write a Dataset does not decide that it is ready; only edits of the spec count as generations."""
    path = api.path(DATASET_KIND, dataset["metadata"]["name"])
    cheat = api.request("PATCH", path, {"spec": {"description": "Mine."}, "status": {"phase": "ReadyForTraining"}})
    assert cheat.code == 200
    assert (cheat.body["status"]["phase"], cheat.body["metadata"]["generation"]) == ("Pending", 2)
    written = api.request("PATCH", f"{path}/status", {"status": {"phase": "Validating"}})
    assert (written.body["status"]["phase"], written.body["metadata"]["generation"]) == ("Validating", 2)


def test_an_edit_that_breaks_a_rule_is_refused(api: ApiServer, dataset: dict[str, Any]) -> None:
    """D-14, D-15: with the sentence of the rule."""
    wrong = api.request("PATCH", api.path(DATASET_KIND, dataset["metadata"]["name"]), {"spec": {"region": None}})
    assert (wrong.code, "is required for s3:// and gs:// data" in wrong.message) == (422, True)


def test_a_job_by_name_is_taken_as_it_is(api: ApiServer) -> None:
    """D-04: the name stays in the spec; whether there is such a Dataset is the operator's to say."""
    document = job_of("by-dataset", {"dataset.uri": "ref:nobody-made-it", "dataset.maxSamples": 5, "suspend": True})
    answer = api.request("POST", api.path(KIND), document)
    assert answer.code == 201, answer.message
    assert answer.body["spec"]["dataset"] == {"uri": "ref:nobody-made-it", "maxSamples": 5}

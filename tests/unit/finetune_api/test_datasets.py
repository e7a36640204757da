"""Datasets: what a job gets from the one it names, what gives way, and when no job may use one."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.datasets import not_ready
from finetune_api.models.dataset import DatasetSpec
from finetune_api.models.partial import DatasetInput, JobInput, validate_job
from finetune_api.problems import SpecError
from finetune_api.resolve import OF_DATASET, Resolution, chosen_dataset, flatten, resolve
from finetune_api.rules import check_resolved
from finetune_api.schema import JSON, structural
from tests.support.manifests import spec_of

DATASET: dict[str, Any] = {"uri": "hf://org/rows", "split": "main", "format": "prompt-completion", "promptColumn": "question"}


def resolved(leaves: dict[str, Any], preset: dict[str, Any] | None = None, **dataset: Any) -> Resolution:
    """A job that names a Dataset."""
    return resolve(spec_of({"dataset.uri": "ref:rows", **leaves}), preset, None, None, {**DATASET, **dataset})


def set_by_dataset(resolution: Resolution) -> set[str]:
    return {path for path, source in resolution.sources.items() if source == "dataset"}


@pytest.mark.parametrize(
    ("job", "preset", "name"),
    [
        ("hf://org/rows", None, None),
        ("ref:a", None, "a"),
        ("ref:a", "ref:b", "a"),
        ("hf://org/rows", "ref:b", None),
        (None, "ref:b", "b"),
        (None, None, None),
    ],
)
def test_the_dataset_a_job_chooses(job: str | None, preset: str | None, name: str | None) -> None:
    """D-04, D-12: job before preset."""
    assert chosen_dataset({"dataset": {"uri": job}}, {"dataset": {"uri": preset}}) == name


def test_the_source_comes_from_the_dataset_and_the_rest_from_the_job() -> None:
    """D-04: where the data is and how it is read; how it is trained on stays the job's."""
    resolution = resolved({"dataset.maxSamples": 7}, onError="skip", secrets={"huggingface": {"secretRef": {"name": "hub"}}})
    dataset = resolution.spec.dataset
    assert (dataset.uri, dataset.split, dataset.format, dataset.prompt_column) == ("hf://org/rows", "main", "prompt-completion", "question")
    assert (dataset.max_samples, dataset.on_error, dataset.packing) == (7, "skip", False)
    assert set_by_dataset(resolution) == {
        "dataset.uri", "dataset.split", "dataset.format", "dataset.promptColumn", "dataset.onError", "secrets.huggingface.secretRef.name",
    }  # fmt: skip
    assert check_resolved(resolution) == []


def test_job_and_preset_win_where_they_may_speak() -> None:
    """Design §3: job > preset > Dataset; what a preset says of another source does not count."""
    preset = {"dataset": {"split": "other", "format": "text", "onError": "fail"}}
    resolution = resolved({"secrets.huggingface.secretRef.name": "own"}, preset, onError="skip")
    assert (resolution.spec.dataset.split, resolution.spec.dataset.format, resolution.spec.dataset.on_error) == (
        "main",
        "prompt-completion",
        "fail",
    )
    assert resolution.sources["dataset.onError"] == "preset"


def test_a_share_of_the_rows_takes_the_place_of_the_evaluation_data() -> None:
    """X29: evaluation data comes from one of the two, and the job decides."""
    assert resolved({}, evalUri="hf://org/held-out").spec.dataset.eval_uri == "hf://org/held-out"
    resolution = resolved({"dataset.evalRatio": 0.1}, evalUri="hf://org/held-out")
    assert resolution.spec.dataset.eval_uri is None
    assert check_resolved(resolution) == []


def test_an_address_of_the_job_needs_no_dataset() -> None:
    assert resolve(spec_of({}), {"dataset": {"uri": "ref:other"}}).spec.dataset.uri == "hf://org/data"


def test_the_rules_see_what_the_dataset_says() -> None:
    """Of Dataset and job together; the path is that of the job."""
    (problem,) = check_resolved(resolved({"method": "dpo"}, format="text", promptColumn=None))
    assert problem.path == "spec.dataset.format"
    (problem,) = check_resolved(resolved({"evaluation.strategy": "epoch"}))
    assert "evaluation needs data" in problem.message
    (problem,) = check_resolved(resolved({"dataset.streaming": True, "training.maxSteps": 5}, uri="https://host/rows.jsonl"))
    assert problem.path == "spec.dataset.streaming"


def test_a_resolved_job_never_has_a_name() -> None:
    with pytest.raises(AssertionError):
        resolve(spec_of({"dataset.uri": "ref:rows"}))
    assert "ref:" not in str(flatten(resolved({}).spec.model_dump(mode="json", by_alias=True)))


@pytest.mark.parametrize("field", OF_DATASET)
def test_what_the_dataset_says_is_not_said_twice(field: str) -> None:
    """D-04."""
    values = {"secretRef": {"name": "keys"}, "evalUri": "hf://org/x", "format": "preference", "promptColumn": "q", "outputColumn": "a"}
    job = {"model": {"uri": "hf://org/model"}, "dataset": {"uri": "ref:rows", field: values.get(field, "x")}}
    with pytest.raises(SpecError, match="names a Dataset, which says split"):
        validate_job(job)


def test_a_field_of_a_dataset_is_the_field_of_a_job() -> None:
    """Same names, bounds and choices, but for the reference itself."""
    of_job, of_dataset = (structural(model, lambda _path, _node: "")["properties"] for model in (JobInput, DatasetInput))
    shared = {name: node for name, node in of_dataset.items() if name not in ("displayName", "description", "origin")}
    for name, node in shared.items():
        elsewhere = {"secrets": of_job["secrets"], "tokenizer": of_job["model"]["properties"]["tokenizer"]}
        wanted: JSON = elsewhere.get(name) or of_job["dataset"]["properties"][name]
        pattern = {"pattern"} if name == "uri" else set()
        assert {k: v for k, v in node.items() if k not in pattern} == {k: v for k, v in wanted.items() if k not in pattern}, name
    assert {name for name in OF_DATASET if name not in of_dataset} == set()
    assert DatasetSpec.model_validate({"uri": "hf://org/rows"}).split is None


@pytest.mark.parametrize(
    ("status", "generation", "says"),
    [
        (None, 1, "the Dataset is Pending (nobody has looked at its present spec yet); the job goes on when"),
        ({"phase": "ReadyForTraining", "observedGeneration": 1}, 2, "Pending (nobody has looked"),
        (
            {"phase": "Invalid", "observedGeneration": 1, "conditions": [{"type": "Ready", "message": "a.jsonl, line 3: no text."}]},
            1,
            "(a.jsonl, line 3: no text); the job goes on when it is ReadyForTraining; look with kubectl describe dataset rows",
        ),
    ],
)
def test_why_a_dataset_is_not_ready(status: dict[str, Any] | None, generation: int, says: str) -> None:
    """AC-47: the Dataset's own problem, and how to look."""
    problem = not_ready("rows", {"metadata": {"generation": generation}, "status": status})
    assert problem is not None
    assert (problem.path, says in problem.message) == ("spec.dataset.uri", True), problem.message


def test_a_ready_dataset_is_ready() -> None:
    """D-04."""
    assert not_ready("rows", {"metadata": {"generation": 2}, "status": {"phase": "ReadyForTraining", "observedGeneration": 2}}) is None

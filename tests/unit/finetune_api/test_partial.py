"""The models of what users write: derived, strict, and refusing in plain language."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.defaults import BASE, SCHEMA
from finetune_api.models.partial import JOB_ONLY, JobInput, PresetInput, leaf_fields, validate_job, validate_preset
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.problems import Problem, SpecError
from tests.support.manifests import REQUIRED, spec_of


def problems(spec: object) -> list[str]:
    """Everything that is wrong with a job's spec, as users read it."""
    try:
        validate_job(spec)
    except SpecError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_only_model_and_dataset_are_required() -> None:
    assert problems(spec_of({})) == []
    assert [line.partition(":")[0] for line in problems({})] == ["spec.model", "spec.dataset"]


def test_every_resolved_field_may_be_written() -> None:
    """The derived model has the resolved model's fields, no more and no less."""
    assert {path for path, _ in leaf_fields(JobInput)} == {path for path, _ in leaf_fields(FineTuneJobSpec)}


def test_presets_have_what_no_single_job_owns() -> None:
    """K-14: a preset is a partial spec; what belongs to one job is not in it."""
    of_job, of_preset = ({path for path, _ in leaf_fields(model)} for model in (JobInput, PresetInput))
    assert of_job - of_preset == {path for path in of_job if path.split(".")[0] in JOB_ONLY}
    assert {"displayName", "presetRef", "replicas", "suspend", "desiredState", "pausePolicy", "retry", "limits"} == JOB_ONLY


def test_presets_require_nothing() -> None:
    validate_preset({})
    validate_preset({"dataset": {"split": "test"}, "model": {"region": "eu"}})


@pytest.mark.parametrize("field", sorted(JOB_ONLY))
def test_presets_refuse_what_belongs_to_a_job(field: str) -> None:
    with pytest.raises(SpecError, match=f"spec.{field}: unknown field"):
        validate_preset({field: "x"})


def test_constraints_survive_the_derivation() -> None:
    """Every bound of the resolved model is a bound of the derived one."""
    resolved = {path: {str(bound) for bound in info.metadata} for path, info in leaf_fields(FineTuneJobSpec)}
    derived = {path: {str(bound) for bound in info.metadata} for path, info in leaf_fields(JobInput)}
    assert {path for path, bounds in resolved.items() if not bounds <= derived[path]} == set()


def test_table_of_defaults_names_fields_that_exist() -> None:
    leaves = {path for path, _ in leaf_fields(FineTuneJobSpec)} | {"cache", "limits", "output.modelCard", "secrets"}
    assert set(BASE) | set(SCHEMA) <= leaves


@pytest.mark.parametrize(
    ("leaves", "message"),
    [
        ({"training.learningRat": 1e-4}, "spec.training.learningRat: unknown field; did you mean learningRate?"),
        ({"training.learning_rate": 1e-4}, "spec.training.learning_rate: unknown field; did you mean learningRate?"),
        ({"batchSize": 2}, "spec.batchSize: unknown field; did you mean spec.training.batchSize?"),
        (
            {"output.zzz": 1},
            "spec.output.zzz: unknown field; known here: uri, use, merge, export, push, modelCard, retain, ",
        ),
        ({"training.batchSize": 200}, "spec.training.batchSize: 200 is above the maximum 128"),
        ({"training.batchSize": 0}, "spec.training.batchSize: 0 is below the minimum 1"),
        ({"training.maxSeqLength": 513}, "spec.training.maxSeqLength: 513 is not a multiple of 8; the nearest are 512 and 520"),
        ({"training.epochs": "2"}, 'spec.training.epochs: "2" should be a whole number'),
        ({"training.epochs": 1.5}, "spec.training.epochs: 1.5 should be a whole number"),
        ({"training.learningRate": "2e-4"}, 'spec.training.learningRate: "2e-4" should be a number'),
        ({"precision.fp16": 1}, "spec.precision.fp16: 1 should be true or false"),
        ({"training": 3}, "spec.training: 3 should be an object"),
        ({"dataset.split": 7}, "spec.dataset.split: 7 should be a text (in quotes where YAML would read it as something else)"),
        ({"adapter.targetModules": "all-linear"}, 'spec.adapter.targetModules: "all-linear" should be a list'),
        ({"adapter.targetModules": []}, "spec.adapter.targetModules: [] is shorter than the minimum 1"),
        ({"displayName": "x" * 129}, f'spec.displayName: "{"x" * 76}... is longer than the maximum 128'),
        (
            {"training.optimizer": "adamw_torsh"},
            'spec.training.optimizer: "adamw_torsh" is none of adamw_torch, adamw_8bit, paged_adamw_8bit, adafactor, sgd; did you mean',
        ),
        ({"resources.memory": "16 GB"}, 'spec.resources.memory: "16 GB" should be a quantity such as 500m, 4 or 16Gi'),
        (
            {"output.uri": "https://host"},
            'spec.output.uri: "https://host" should be a prefix in a store: s3://bucket/prefix or gs://bucket/prefix',
        ),
        ({"presetRef.kind": "FineTunePreset"}, "spec.presetRef.name: is required: Name of the preset."),
        ({"logging.trackers": [{"typ": "wandb"}]}, "spec.logging.trackers[0].typ: unknown field; did you mean type?"),
        ({"resources.nodeSelector": {"pool": 1}}, "spec.resources.nodeSelector.pool: 1 should be a text"),
    ],
)
def test_refusals_name_field_value_rule_and_fix(leaves: dict[str, Any], message: str) -> None:
    assert any(line.startswith(message) for line in problems(spec_of(leaves))), problems(spec_of(leaves))


def test_all_problems_are_told_at_once() -> None:
    """A-16: every missing or wrong one in one go."""
    found = problems(spec_of({"training.batchSize": 0, "training.epochs": 0, "checkpoint.kepLast": 2}))
    assert len(found) == 3


@pytest.mark.parametrize("number", [2.0, 2])
def test_whole_numbers_may_be_written_as_decimals(number: float) -> None:
    """JSON knows no difference, so neither does the API server."""
    assert problems(spec_of({"training.epochs": number})) == []


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_are_finite(number: float) -> None:
    assert problems(spec_of({"training.weightDecay": number}))


def test_null_counts_as_not_written() -> None:
    assert problems(spec_of({"training": None, "precision.fp16": None})) == []
    assert problems({**spec_of({}), "model": {"uri": None}})[0].startswith("spec.model.uri: is required")


def test_input_is_left_as_it_was() -> None:
    spec = spec_of({"training.epochs": 2.0, "training.seed": None})
    before = repr(spec)
    validate_job(spec)
    assert repr(spec) == before


def test_problem_keeps_the_value() -> None:
    with pytest.raises(SpecError) as caught:
        validate_job(spec_of({"training.batchSize": 200}))
    assert caught.value.problems == (Problem("spec.training.batchSize", 200, "200 is above the maximum 128"),)


@pytest.mark.parametrize("spec", [None, [], "text", 3])
def test_spec_must_be_an_object(spec: object) -> None:
    assert problems(spec) == [f"spec: {'null' if spec is None else repr(spec).replace(chr(39), chr(34))} should be an object"]


def test_required_paths_of_the_tests_are_the_required_paths() -> None:
    assert {path for path, info in leaf_fields(JobInput) if info.is_required() and path.count(".") == 1} >= set(REQUIRED)

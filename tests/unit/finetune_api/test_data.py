"""Every example and every kept job is judged by the models as its folder says; the API server gets the same files in tests/integration."""

from __future__ import annotations

import pytest

from finetune_api.base_models import SHIPPED_BASE_MODELS
from finetune_api.constants import BASE_MODEL_KIND, BUDGET_KIND, DATASET_KIND, GPU_TYPE_KIND, KIND
from finetune_api.documents import validate_document
from finetune_api.gpu_types import SHIPPED_GPU_TYPES
from finetune_api.models.partial import JobInput, leaf_fields
from finetune_api.presets import SHIPPED as SHIPPED_PRESETS
from finetune_api.problems import Problem, SpecError
from finetune_api.resolve import chosen_dataset, chosen_gpu_type, chosen_model, flatten, resolve
from finetune_api.rules import RULES, check_resolved
from tests.support.manifests import EXAMPLES, INVALID, REQUIRED, SHIPPED, VALID, Accepted, Refused, accepted, refused


@pytest.mark.parametrize("case", accepted(VALID + EXAMPLES + SHIPPED), ids=str)
def test_accepted(case: Accepted) -> None:
    validate_document(case.document)


@pytest.mark.parametrize("case", refused(INVALID), ids=str)
def test_refused_with_the_expected_sentence(case: Refused) -> None:
    with pytest.raises(SpecError) as caught:
        validate_document(case.document)
    assert case.expect in str(caught.value)


@pytest.mark.parametrize("case", [case for case in accepted(EXAMPLES) if case.document["kind"] == KIND], ids=str)
def test_examples_hold_together_with_their_presets(case: Accepted) -> None:
    others = [(other.document["kind"], other.document["metadata"]["name"], other.document["spec"]) for other in accepted([case.file])]
    presets = {name: preset.spec for name, preset in SHIPPED_PRESETS.items()}
    presets |= {name: spec for kind, name, spec in others if kind not in (KIND, BASE_MODEL_KIND, BUDGET_KIND, DATASET_KIND, GPU_TYPE_KIND)}
    models = {**SHIPPED_BASE_MODELS, **{name: spec for kind, name, spec in others if kind == BASE_MODEL_KIND}}
    spec = case.document["spec"]
    named, chosen = spec.get("presetRef", {}).get("name"), chosen_model(spec)
    model, rows = models[chosen] if chosen else None, chosen_dataset(spec)
    dataset = next((spec for kind, name, spec in others if (kind, name) == (DATASET_KIND, rows)), None)
    gpu_types = {**SHIPPED_GPU_TYPES, **{name: spec for kind, name, spec in others if kind == GPU_TYPE_KIND}}
    gpus = gpu_types[wanted] if (wanted := chosen_gpu_type(spec)) else None
    assert check_resolved(resolve(spec, presets[named] if named else None, None, model, dataset, gpus)) == []


def test_every_rule_is_broken_by_a_kept_job() -> None:
    broken = [problem for case in refused(INVALID) for problem in _problems(case)]
    messages, paths = {problem.message for problem in broken}, {problem.path for problem in broken}
    # A rule that explains itself on the very values has no fixed message.
    assert {rule.id for rule in RULES if rule.message not in messages and not (rule.explain and f"spec.{rule.path}" in paths)} == set()


def test_every_range_has_its_ends_and_one_step_beyond() -> None:
    """AC-72: the ranges' ends are accepted, one step beyond is refused."""
    ranged = {path for path, info in leaf_fields(JobInput) if any(hasattr(bound, "le") for bound in info.metadata)}
    stems = {file.stem for file in INVALID}
    assert {path for path in ranged for end in ("below", "above") if f"range-{path.replace('.', '-').lower()}-{end}" not in stems} == set()
    for end in ("lowest", "highest"):
        cases = [case for case in accepted(VALID) if case.file.stem.startswith(f"range-ends-{end}")]
        assert ranged - {path for case in cases for path in flatten(case.document["spec"])} == set()


def test_every_kind_of_field_is_written_by_an_accepted_job() -> None:
    """AC-72: the schema knows every name; nothing exists that no kept job uses."""
    jobs = [case.document for case in accepted(VALID + EXAMPLES) if case.document["kind"] == KIND]
    written = {path for job in jobs for path in flatten(job["spec"])}
    assert {path for path, _ in leaf_fields(JobInput)} - written - set(REQUIRED) == set()


def _problems(case: Refused) -> tuple[Problem, ...]:
    try:
        validate_document(case.document)
    except SpecError as error:
        return error.problems
    return ()

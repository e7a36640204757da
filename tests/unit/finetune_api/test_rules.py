"""Rules between fields: what they refuse, what presets leave open, and that the resolved job is judged once more."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from finetune_api.models.partial import JobInput, PresetInput, leaf_fields
from finetune_api.resolve import resolve, unflatten
from finetune_api.rules import RULES, check_job, check_name, check_preset, check_resolved
from finetune_api.written import Written
from tests.support.manifests import spec_of
from tests.support.specs import GPU_TYPE, job_leaves, preset_leaves

LEAVES = [path for path, _ in leaf_fields(JobInput)]
KNOWN = {".".join(path.split(".")[:depth]) for path in LEAVES for depth in range(1, path.count(".") + 2)}
"""Every field, blocks among them."""


def messages(leaves: dict[str, Any]) -> set[str]:
    """Paths of the rules a job breaks."""
    return {problem.path.removeprefix("spec.") for problem in check_job(spec_of(leaves))}


def test_ids_are_unique_and_every_rule_cites_a_requirement() -> None:
    assert len({rule.id for rule in RULES}) == len(RULES)
    assert all(rule.requirement for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_rules_speak_of_fields_that_exist(rule: Any) -> None:
    assert rule.path in KNOWN
    assert set(rule.open) <= KNOWN
    if not rule.job_only:
        assert "presetRef" not in rule.preset_expression()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.id)
def test_what_is_absent_breaks_no_rule(rule: Any) -> None:
    """The API server runs a rule only where the field is that it stands at."""
    nothing = Written({})
    assert rule.kept_by_job(nothing)
    assert rule.kept_by_preset(nothing)


@pytest.mark.parametrize("hundredths", range(101))
def test_every_hundredth_is_a_share_to_evaluate_on(hundredths: int) -> None:
    """E-19, AC-72: a step of 0.01, whatever binary fractions make of it; half a step and a thousandth beside it are refused."""
    assert messages({"dataset.evalRatio": hundredths / 100}) == set()
    beside = [hundredths / 100 + off for off in (0.005, 0.001, -0.001) if 0 <= hundredths / 100 + off <= 1]
    assert all(messages({"dataset.evalRatio": ratio}) == {"dataset.evalRatio"} for ratio in beside)


def test_a_job_that_has_run_keeps_a_finer_share() -> None:
    """E-19: the rule came later than the field, and nothing else would bring such a job on."""
    spec = spec_of({"dataset.evalRatio": 0.125})
    assert [problem.path for problem in check_job(spec)] == ["spec.dataset.evalRatio"]
    assert check_job(spec, has_run=True) == []
    assert check_resolved(resolve(spec), has_run=True) == []


def test_defaults_alone_keep_every_rule() -> None:
    assert check_job(spec_of({})) == []
    assert check_preset({}) == []
    assert check_resolved(resolve(spec_of({}))) == []


@pytest.mark.parametrize(
    ("open_half", "other"),
    [
        ({"evaluation.strategy": "steps"}, {"dataset.evalRatio": 0.1}),
        ({"earlyStopping.patience": 3}, {"evaluation.strategy": "steps", "dataset.evalRatio": 0.1}),
        ({"output.use": "best"}, {"evaluation.strategy": "steps", "dataset.evalRatio": 0.1}),
        ({"dataset.uri": "s3://bucket/rows"}, {"dataset.secretRef.name": "s3", "dataset.region": "eu"}),
        ({"training.maxSeqLength": 16384}, {"training.longContext": True}),
        ({"adapter.targetModules": ["c_attn"]}, {"adapter.allowCustomModules": True}),
        ({"checkpoint.keepLast": 200}, {"checkpoint.keepLastRemote": 300}),
        ({"resources.processesPerReplica": 4}, {"resources.gpusPerReplica": 4}),
    ],
)
def test_a_preset_may_supply_the_other_half(open_half: dict[str, Any], other: dict[str, Any]) -> None:
    """Refused without a preset, left open with one, and judged when both are known."""
    assert check_job(spec_of(open_half))
    referring = spec_of({**open_half, "presetRef.name": "ours"})
    assert check_job(referring) == []
    assert check_resolved(resolve(referring, unflatten(other))) == []
    assert check_resolved(resolve(referring, {})), "the preset brought nothing, so that the rule is broken"


@pytest.mark.parametrize(
    ("job", "preset"),
    [
        ({"precision.bf16": True}, {"precision.fp16": True}),
        ({"dataset.evalRatio": 0.1}, {"dataset.evalUri": "hf://org/eval"}),
        ({"dataset.promptMaxLength": 1024}, {"training.maxSeqLength": 512}),
        ({"adapter.rank": 8}, {"adapter.type": "full"}),
        ({"evaluation.strategy": "no"}, {"earlyStopping.patience": 2}),
        ({"replicas": 2}, {"distributed.strategy": "none", "resources.device": "cpu"}),
    ],
)
def test_job_and_preset_may_contradict_each_other(job: dict[str, Any], preset: dict[str, Any]) -> None:
    """Each is fine by itself; together they are refused before anything runs."""
    spec = spec_of({**job, "presetRef.name": "ours"})
    assert check_job(spec) == []
    assert check_preset(unflatten(preset)) == []
    assert check_resolved(resolve(spec, unflatten(preset), gpu_type=GPU_TYPE))


def test_full_fine_tuning_drops_the_lora_numbers_of_a_preset() -> None:
    """B-09: a LoRA preset must not stand in the way of adapter.type full."""
    spec = spec_of({"presetRef.name": "sft", "adapter.type": "full"})
    resolution = resolve(spec, {"adapter": {"type": "lora", "rank": 64, "targetModules": ["all-linear"]}})
    assert check_resolved(resolution) == []
    assert resolution.sources["adapter.rank"] == "default"


@pytest.mark.parametrize(("processes", "kept"), [(1, True), (2, True), (3, False)])
def test_ranks_per_gpu(processes: int, kept: bool) -> None:
    """M-01."""
    leaves = {"resources.gpusPerReplica": 2, "resources.processesPerReplica": processes}
    assert messages(leaves) == (set() if kept else {"resources.processesPerReplica"})


@given(leaves=job_leaves())
def test_jobs_without_a_preset_are_judged_as_their_resolution(leaves: dict[str, Any]) -> None:
    """A preset, a TrainingMethod or, for the longest sequence, a BaseModel could supply what is missing."""
    spec = spec_of({path: value for path, value in leaves.items() if not path.startswith(("presetRef.", "methodRef."))})
    resolution = resolve(spec, gpu_type=GPU_TYPE)
    total = resolution.spec.training.max_seq_length
    assert check_job(spec) == [found for found in check_resolved(resolution) if f"maxSeqLength, which is {total} here" not in found.message]


@pytest.mark.parametrize("field", ["promptMaxLength", "contentMaxLength"])
def test_limits_fit_into_the_longest_sequence_whoever_sets_it(field: str) -> None:
    """X10: the default of 512 tokens counts as well; 0 is the model's context, which is not known yet."""
    job = spec_of({f"dataset.{field}": 513})
    (problem,) = check_resolved(resolve(job))
    assert problem.path == f"spec.dataset.{field}"
    assert problem.message == "must not exceed training.maxSeqLength, which is 512 here; lower it or set that"
    assert check_resolved(resolve(job, {"training": {"maxSeqLength": 1024}})) == []
    assert check_resolved(resolve(job, {"training": {"maxSeqLength": 0}})) == []
    assert check_resolved(resolve(spec_of({f"dataset.{field}": 512}))) == []
    assert check_resolved(resolve(job), has_run=True) == [], "a job that has run goes on"


@given(leaves=job_leaves(), preset=preset_leaves())
def test_what_is_refused_early_is_refused_in_the_end(leaves: dict[str, Any], preset: dict[str, Any]) -> None:
    """The API server never refuses a job that a preset could have made whole."""
    spec = spec_of({**leaves, "presetRef.name": "ours"})
    early = {problem.message for problem in check_job(spec)}
    late = {problem.message for problem in check_resolved(resolve(spec, unflatten(preset), gpu_type=GPU_TYPE))}
    assert early <= late


@pytest.mark.parametrize("name", ["a", "sft-20241201-143052", "a" * 50])
def test_job_names(name: str) -> None:
    """AC-01 J-01."""
    assert check_name(name) == []


@pytest.mark.parametrize("name", ["", "7b", "a" * 51, "a.b", "A", "a-", "a_b"])
def test_names_that_no_service_could_have(name: str) -> None:
    assert [problem.path for problem in check_name(name)] == ["metadata.name"]


def test_preset_fields_are_read_by_preset_rules_only() -> None:
    of_preset = {path for path, _ in leaf_fields(PresetInput)}
    assert [rule.id for rule in RULES if rule.path not in of_preset and not any(p.startswith(f"{rule.path}.") for p in of_preset)] == []

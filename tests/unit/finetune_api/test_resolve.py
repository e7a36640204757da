"""From what was written to what is run: precedence, sources, presets, identity."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from finetune_api.defaults import ADAPTER, BASE, SCHEMA
from finetune_api.models.base import ResumeClass
from finetune_api.models.methods import METHOD_BLOCKS
from finetune_api.models.partial import leaf_fields
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.presets import SHIPPED
from finetune_api.resolve import digest, flatten, identity, identity_digest, processes_per_replica, resolve, resume_classes, unflatten
from finetune_api.rules import check_resolved
from tests.support.manifests import REQUIRED, spec_of
from tests.support.specs import GPU_TYPE, job_leaves

SMALLEST = spec_of({})
OF_ALL_METHODS = {path: value for path, value in BASE.items() if path.split(".")[0] not in METHOD_BLOCKS}
"""Defaults but those of the blocks that only one method may have."""


def resolved(job: dict[str, Any], preset: dict[str, Any] | None = None) -> FineTuneJobSpec:
    """The resolved spec of leaves over a preset's leaves."""
    return resolve(spec_of(job), unflatten(preset or {})).spec


def test_smallest_job_is_whole() -> None:
    """Design: only model and dataset are needed."""
    leaves = flatten(resolve(SMALLEST).spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert leaves == {**REQUIRED, **OF_ALL_METHODS, **SCHEMA}


@pytest.mark.parametrize("method", METHOD_BLOCKS)
def test_a_method_has_its_own_block_alone(method: str) -> None:
    """H-01: defaults of other methods' blocks are not filled in."""
    leaves = flatten(resolved({"method": method}).model_dump(mode="json", by_alias=True, exclude_none=True))
    assert {path.split(".")[0] for path in leaves} & set(METHOD_BLOCKS) == {method}


@pytest.mark.parametrize(
    ("job", "preset", "value", "source"),
    [
        ({}, {}, 2e-4, "default"),
        ({"adapter.type": "full"}, {}, 2e-5, "adapter"),
        ({"method": "pretrain"}, {}, 1e-4, "method"),
        ({}, {"adapter.type": "full"}, 2e-5, "adapter"),
        ({"adapter.type": "full"}, {"training.learningRate": 1e-3}, 1e-3, "preset"),
        ({"training.learningRate": 1e-2}, {"training.learningRate": 1e-3}, 1e-2, "job"),
        ({"training.learningRate": 2e-4}, {"training.learningRate": 1e-3}, 2e-4, "job"),
    ],
)
def test_precedence(job: dict[str, Any], preset: dict[str, Any], value: float, source: str) -> None:
    """Design: job > preset > adapter/method > base table; a value that equals a default still counts as written (X05)."""
    resolution = resolve(spec_of(job), unflatten(preset))
    assert (resolution.spec.training.learning_rate, resolution.sources["training.learningRate"]) == (value, source)


@pytest.mark.parametrize(
    ("job", "preset", "packs", "source"),
    [
        ({}, {}, False, "default"),
        ({"training.backend": "optimized"}, {}, True, "backend"),
        ({}, {"training.backend": "optimized"}, True, "backend"),
        ({"training.backend": "optimized"}, {"dataset.packing": False}, False, "preset"),
        ({"training.backend": "optimized", "dataset.packing": False}, {}, False, "job"),
    ],
)
def test_a_backend_changes_only_what_is_left_unset(job: dict[str, Any], preset: dict[str, Any], packs: bool, source: str) -> None:
    """B-12: packing is turned on where neither job nor preset speaks of it, and shows with its source."""
    resolution = resolve(spec_of(job), unflatten(preset))
    assert (resolution.spec.dataset.packing, resolution.sources["dataset.packing"]) == (packs, source)


def test_sources_name_every_leaf() -> None:
    resolution = resolve(spec_of({"training.seed": 7}), {"training": {"epochs": 3}})
    assert set(resolution.sources) == set(REQUIRED) | set(OF_ALL_METHODS) | set(SCHEMA)
    told = {path: source for path, source in resolution.sources.items() if source != "default"}
    assert told == {**dict.fromkeys(REQUIRED, "job"), "training.seed": "job", "training.epochs": "preset"}


def test_lists_are_replaced_not_merged() -> None:
    assert resolved({"adapter.targetModules": ["k_proj"]}, {"adapter.targetModules": ["q_proj"]}).adapter.target_modules == ["k_proj"]


def test_preset_and_job_are_left_as_they_were() -> None:
    """AC-29 K-05: a job never changes its preset."""
    job, preset = spec_of({"training.epochs": 5}), {"training": {"epochs": 3, "seed": 1}}
    before = repr((job, preset))
    resolve(job, preset)
    assert repr((job, preset)) == before


@given(leaves=job_leaves())
def test_resolving_twice_changes_nothing(leaves: dict[str, Any]) -> None:
    once = resolve(spec_of(leaves), gpu_type=GPU_TYPE).spec
    assert resolve(once.model_dump(mode="json", by_alias=True, exclude_none=True), gpu_type=GPU_TYPE).spec == once


@given(leaves=job_leaves())
def test_what_the_job_writes_is_what_runs(leaves: dict[str, Any]) -> None:
    spec = resolve(spec_of(leaves), SHIPPED["sft"].spec, gpu_type=GPU_TYPE).spec
    run = flatten(spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert {path: run.get(path) for path in leaves} == leaves


@given(leaves=job_leaves())
def test_flatten_and_unflatten_are_inverse(leaves: dict[str, Any]) -> None:
    assert flatten(unflatten(leaves)) == leaves


def test_preset_sft_is_the_source_page() -> None:
    """AC-21: every value of the source, over nothing but model and dataset."""
    spec = resolve(SMALLEST, SHIPPED["sft"].spec).spec
    adapter, training, checkpoint = spec.adapter, spec.training, spec.checkpoint
    assert (adapter.type, adapter.rank, adapter.alpha, adapter.dropout, adapter.target_modules) == (
        "lora",
        16,
        16,
        0.0,
        ["q_proj", "v_proj"],
    )
    assert (training.batch_size, training.grad_accum_steps, training.max_seq_length) == (2, 4, 512)
    assert (training.learning_rate, training.optimizer, training.lr_scheduler) == (2e-4, "adamw_torch", "cosine")
    assert (training.epochs, training.max_steps, training.weight_decay) == (2, -1, 0.01)
    assert (training.warmup_ratio, training.max_grad_norm) == (0.1, 1.0)
    assert (checkpoint.steps, checkpoint.interval_minutes, checkpoint.keep_last_remote) == (100, 30, 100)
    assert (spec.evaluation.strategy, spec.early_stopping.patience, spec.early_stopping.threshold) == ("no", 0, 0.005)
    assert (spec.precision.fp16, training.gradient_checkpointing) == (True, True)
    assert (spec.logging.level, spec.logging.steps, training.seed) == ("info", 10, 42)


def test_preset_lora_chat_is_the_source_table() -> None:
    """AC-61, X09: sequences as long as the model's context."""
    spec = resolve(SMALLEST, SHIPPED["lora-chat"].spec).spec
    assert (spec.training.epochs, spec.training.learning_rate, spec.training.batch_size) == (3, 2e-4, 4)
    assert (spec.adapter.rank, spec.adapter.alpha, spec.adapter.target_modules) == (16, 32, ["q_proj", "v_proj"])
    assert (spec.training.max_seq_length, spec.training.grad_accum_steps) == (0, 1)


def test_preset_profile_003_is_the_source_table() -> None:
    """X01, X17, X18, X23, X25, X27, M-02: those for dpo and grpo differ from it by their method alone."""
    spec = resolve(SMALLEST, SHIPPED["profile-003"].spec).spec
    assert (spec.method, spec.training.epochs, spec.training.batch_size, spec.training.learning_rate) == ("sft", 1, 8, 1e-4)
    assert (spec.adapter.rank, spec.adapter.alpha, spec.adapter.dropout, spec.adapter.target_modules) == (16, 16, 0.1, ["all-linear"])
    assert (spec.checkpoint.steps, spec.checkpoint.keep_last, spec.evaluation.steps, spec.evaluation.batch_size) == (100, 2, 100, 1)
    assert (spec.logging.steps, spec.dataset.num_workers, spec.precision.dtype) == (5, 1, "bfloat16")
    assert (spec.evaluation.strategy, spec.dataset.eval_ratio, spec.distributed.strategy) == ("steps", 0.1, "zero3_offload")
    for other in ("dpo", "grpo"):
        own = {key: value for key, value in SHIPPED[f"profile-003-{other}"].spec.items() if key not in ("method", other)}
        assert own == {key: value for key, value in SHIPPED["profile-003"].spec.items() if key != "method"}


@pytest.mark.parametrize("own", [{"dataset.evalUri": "configmap://data/eval.jsonl"}, {"dataset.uri": "ref:rows"}])
def test_a_preset_s_split_gives_way_to_rows_of_their_own(own: dict[str, Any]) -> None:
    """E-20, X29: the job's evaluation data, or that of its Dataset, is used; the preset does not make the job invalid."""
    dataset = {"uri": "configmap://data/train.jsonl", "evalUri": "configmap://data/eval.jsonl"}
    resolution = resolve(spec_of(own), SHIPPED["profile-003"].spec, dataset=dataset)
    assert (resolution.spec.dataset.eval_ratio, resolution.spec.dataset.eval_uri) == (0, "configmap://data/eval.jsonl")
    assert check_resolved(resolution) == []


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_every_shipped_preset_makes_a_valid_job(name: str) -> None:
    """K-01: of model and data alone; of grpo with what scores answers."""
    own = {"grpo.rewardFunctions": [{"type": "length", "maxTokens": 6}]} if name.endswith("grpo") else {}
    assert check_resolved(resolve(spec_of(own), SHIPPED[name].spec)) == []


def test_preset_pretrain_is_the_source_page_without_lora() -> None:
    """AC-22, K-01, X05, appendix 3: all values of sft but those of the adapter, the rate, and packing."""
    spec = resolve(SMALLEST, SHIPPED["pretrain"].spec).spec
    assert (spec.adapter.type, spec.training.learning_rate, spec.dataset.packing) == ("full", 1e-4, True)
    own, sft = (flatten(SHIPPED[name].spec) for name in ("pretrain", "sft"))
    differ = {path for path in own.keys() | sft.keys() if own.get(path) != sft.get(path) and not path.startswith("adapter.")}
    assert differ == {"method", "training.learningRate", "dataset.packing"}


def test_presets_fastest_and_cheapest() -> None:
    """AC-62, K-08, K-09, X07: rate, batch and steps of fastest are higher, accumulation lower; rows per optimizer step the same."""
    fastest, cheapest = (resolve(SMALLEST, SHIPPED[name].spec).spec.training for name in ("fastest", "cheapest"))
    assert fastest.learning_rate > cheapest.learning_rate
    assert fastest.batch_size > cheapest.batch_size
    assert fastest.max_steps > cheapest.max_steps
    assert fastest.grad_accum_steps < cheapest.grad_accum_steps
    assert fastest.batch_size * fastest.grad_accum_steps == cheapest.batch_size * cheapest.grad_accum_steps
    assert {fastest.max_steps_mode, cheapest.max_steps_mode} == {"cap"}


def test_preset_throughput_holds_the_fast_defaults() -> None:
    """B-12, B-13: rows packed to what a step holds, by the fast kernels; the defaults of other jobs stay what the requirements say."""
    spec = resolve(SMALLEST, SHIPPED["throughput"].spec).spec
    assert (spec.training.backend, spec.dataset.packing, spec.training.batch_size, spec.training.max_seq_length) == (
        "optimized",
        True,
        1,
        4096,
    )
    assert (spec.precision.dtype, spec.precision.bf16, spec.training.optimizer) == ("bfloat16", True, "adamw_torch")
    assert (spec.adapter.rank, spec.adapter.alpha, spec.adapter.dropout, spec.adapter.target_modules) == (16, 32, 0.0, ["all-linear"])
    assert (spec.training.learning_rate, spec.training.lr_scheduler, spec.training.warmup_ratio) == (2e-4, "cosine", 0.03)
    plain = resolve(SMALLEST).spec
    assert (plain.training.backend, plain.dataset.packing, plain.training.max_seq_length) == ("standard", False, 512)


@pytest.mark.parametrize(("job", "rate"), [({"method": "sft"}, 2e-4), ({"method": "pretrain"}, 1e-4), ({"adapter.type": "full"}, 2e-5)])
def test_preset_throughput_fits_what_it_is_for(job: dict[str, Any], rate: float) -> None:
    """B-12: the learning rate stays that of the method and the adapter."""
    resolution = resolve(spec_of(job), SHIPPED["throughput"].spec)
    assert check_resolved(resolution) == []
    assert resolution.spec.training.learning_rate == rate


def test_preset_quick_test_is_short() -> None:
    """K-10, X07: an upper bound on steps."""
    spec = resolve(SMALLEST, SHIPPED["quick-test"].spec).spec
    assert (spec.training.max_steps, spec.training.max_steps_mode) == (100, "cap")
    assert (spec.dataset.max_samples, spec.training.batch_size) == (100, 1)


def test_every_leaf_has_a_resume_class() -> None:
    """P-14: for each field it is known what an edit means once a job has run."""
    assert set(resume_classes()) == {path for path, _ in leaf_fields(FineTuneJobSpec)}
    leaves = flatten(resolve(SMALLEST).spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert set(leaves) - set(resume_classes()) == {"cache", "limits", "output.modelCard", "secrets"}, "empty objects, no fields"


@pytest.mark.parametrize(
    "leaves",
    [
        {"model.uri": "hf://org/other"},
        {"adapter.rank": 8},
        {"dataset.packing": True},
        {"training.seed": 7},
        {"training.maxSeqLength": 1024},
        {"precision.bf16": True},
        {"adapter.targetModules": ["k_proj"]},
        {"model.tokenizer.uri": "hf://org/tokenizer"},
    ],
)
def test_identity_edits_make_it_another_training(leaves: dict[str, Any]) -> None:
    assert identity_digest(resolved(leaves)) != identity_digest(resolved({}))


@pytest.mark.parametrize(
    "leaves",
    [
        {"training.learningRate": 1e-3},
        {"training.epochs": 9},
        {"logging.steps": 1},
        {"checkpoint.steps": 5},
        {"resources.memory": "8Gi"},
        {"replicas": 4},
        {"output.retain": "Delete"},
        {"dataset.secretRef.name": "s3"},
        {"training.batchSize": 4, "training.gradAccumSteps": 2},
    ],
)
def test_free_and_schedule_edits_keep_it_the_same(leaves: dict[str, Any]) -> None:
    """Batch and accumulation count only as the global batch, which is compared where the number of ranks is known."""
    assert identity_digest(resolved(leaves)) == identity_digest(resolved({}))


def test_identity_has_only_identity_fields() -> None:
    classes = resume_classes()
    assert {classes[path] for path in identity(resolved({"adapter.alpha": 8}))} == {ResumeClass.IDENTITY}


def test_digest_does_not_depend_on_order() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


@pytest.mark.parametrize(
    ("leaves", "ranks"),
    [
        ({}, 1),
        ({"resources.gpusPerReplica": 4}, 4),
        ({"resources.gpusPerReplica": 4, "resources.processesPerReplica": 2}, 2),
        ({"resources.device": "cpu", "resources.gpusPerReplica": 4}, 1),
        ({"resources.device": "cpu", "resources.processesPerReplica": 2}, 2),
    ],
)
def test_ranks_per_pod(leaves: dict[str, Any], ranks: int) -> None:
    assert processes_per_replica(resolved(leaves)) == ranks


def test_layers_of_defaults_name_known_fields() -> None:
    known = {path for path, _ in leaf_fields(FineTuneJobSpec)}
    assert {path for layer in ADAPTER.values() for path in layer} <= known

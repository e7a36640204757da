"""The preset auto: numbers from GPU memory and rows, each with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.auto import AUTO, TIERS, TUNED, Tuning, is_auto, tune
from finetune_api.gpu_types import SHIPPED_GPU_TYPES
from finetune_api.presets import SHIPPED
from finetune_api.quantities import number_of
from finetune_api.resolve import Resolution, resolve
from finetune_api.rules import check_resolved
from finetune_api.suggestions import batch_band, epochs_band, eval_ratio_band
from tests.support.manifests import spec_of

PRESET = SHIPPED[AUTO].spec


def tuned(rows: int | None = None, gpu_memory: str | None = "80Gi", **leaves: Any) -> tuple[Resolution, Tuning]:
    """A job with the preset, as it is run."""
    memory = {"resources.gpuMemory": gpu_memory} if gpu_memory is not None else {}
    job = spec_of({**memory, **{path.replace("__", "."): value for path, value in leaves.items()}})
    tuning = tune(resolve(job, PRESET), rows)
    return resolve(job, tuning.over(PRESET)), tuning


@pytest.mark.parametrize(
    ("memory", "batch", "steps", "rate"),
    [
        ("6Gi", 1, 60, 1e-4),
        ("8191Mi", 1, 60, 1e-4),
        ("8Gi", 2, 100, 1e-4),
        ("15360Mi", 2, 100, 1e-4),
        ("16Gi", 4, 200, 2e-4),
        ("24Gi", 8, 500, 2e-4),
        ("143771Mi", 8, 500, 2e-4),
    ],
)
def test_batch_steps_and_rate_go_by_memory(memory: str, batch: int, steps: int, rate: float) -> None:
    """K-11, F-03, F-04, appendix 3: less memory, smaller batch and more accumulation: 16 rows per optimizer step on each tier."""
    resolution, _ = tuned(gpu_memory=memory)
    training = resolution.spec.training
    assert (training.batch_size, training.grad_accum_steps, training.max_steps, training.learning_rate) == (batch, 16 // batch, steps, rate)
    assert training.max_steps_mode == "cap"
    assert check_resolved(resolution) == []


@pytest.mark.parametrize("name", sorted(SHIPPED_GPU_TYPES))
def test_batches_are_those_that_are_recommended(name: str) -> None:
    """F-03, AC-14: the plan of a job with this preset never advises against its own batch."""
    memory = SHIPPED_GPU_TYPES[name]["memory"]
    band = batch_band(int(number_of(memory)))
    assert band is not None
    assert band.holds(tuned(gpu_memory=memory)[0].spec.training.batch_size)


@pytest.mark.parametrize(("rows", "epochs", "share"), [(500, 3, 0.1), (1000, 2, 0.1), (10_000, 2, 0.1), (50_000, 1, 0.05)])
def test_epochs_and_evaluation_go_by_rows(rows: int, epochs: int, share: float) -> None:
    """E-20, F-19, AC-12, AC-13."""
    resolution, _ = tuned(rows=rows)
    assert (resolution.spec.training.epochs, resolution.spec.dataset.eval_ratio) == (epochs, share)
    band = eval_ratio_band(rows)
    assert epochs_band(rows).holds(epochs)
    assert band is None or band.holds(share)


def test_rows_of_their_own_need_no_split() -> None:
    """E-20: a separate evaluation file → 0, also one that the Dataset has."""
    resolution, tuning = tuned(rows=500, dataset__evalUri="configmap://data/eval.jsonl")
    assert resolution.spec.dataset.eval_ratio == 0
    assert "dataset.evalRatio" not in tuning.values
    assert check_resolved(resolution) == []


def test_each_value_has_its_reason() -> None:
    """A-08: who decided is not enough where a value was reckoned."""
    _, tuning = tuned(rows=2_500, gpu_memory="23034Mi")
    assert tuning.reasons == {
        "training.batchSize": "23034Mi of GPU memory (16 to below 24 GiB)",
        "training.gradAccumSteps": "16 rows per optimizer step and rank",
        "training.maxSteps": "23034Mi of GPU memory (16 to below 24 GiB)",
        "training.learningRate": "23034Mi of GPU memory (16 to below 24 GiB)",
        "training.epochs": "2500 rows (1000 to 10000)",
        "dataset.evalRatio": "2500 rows (1000 to 10000)",
    }
    assert set(tuning.reasons) == set(TUNED)
    assert tuning.notes == ()


def test_what_is_not_known_is_said() -> None:
    """K-11: the smallest tier fits every GPU, and the sentence says what to write for more."""
    resolution, tuning = tuned(gpu_memory=None)
    assert resolution.spec.training.batch_size == TIERS[0].batch_size
    assert tuning.reasons["training.batchSize"] == "GPU memory not known: as below 8 GiB"
    memory, rows = tuning.notes
    assert "resources.gpuType" in memory
    assert "resources.gpuMemory" in memory
    assert "dataset.uri ref:NAME" in rows
    assert "training.epochs" not in tuning.values


def test_on_cpu_nothing_is_missing_but_the_rows() -> None:
    _, tuning = tuned(gpu_memory=None, resources__device="cpu")
    assert tuning.reasons["training.batchSize"] == "on CPU"
    assert len(tuning.notes) == 1


def test_what_the_job_says_stays_and_the_rest_follows() -> None:
    """K-05, X60: accumulation goes with the job's own batch, so that a step keeps its rows."""
    resolution, tuning = tuned(training__batchSize=4, training__learningRate=3e-4)
    training = resolution.spec.training
    assert (training.batch_size, training.grad_accum_steps, training.learning_rate) == (4, 4, 3e-4)
    assert not {"training.batchSize", "training.learningRate"} & tuning.reasons.keys()
    large, tuning = tuned(training__batchSize=32)
    assert large.spec.training.grad_accum_steps == 1
    assert tuning.reasons["training.gradAccumSteps"] == "32 rows per optimizer step and rank"


def test_all_weights_take_the_smallest_batch_and_their_own_rate() -> None:
    """F-03 is of LoRA; F-12: the band of full training is another one."""
    resolution, _ = tuned(adapter__type="full")
    training = resolution.spec.training
    assert (training.batch_size, training.grad_accum_steps, training.learning_rate) == (1, 16, 2e-5)


@pytest.mark.parametrize("method", ["sft", "pretrain", "dpo", "reward", "kto"])
@pytest.mark.parametrize("memory", ["6Gi", "80Gi"])
def test_it_is_valid_with_every_method(method: str, memory: str) -> None:
    resolution, _ = tuned(rows=500, gpu_memory=memory, method=method)
    assert check_resolved(resolution) == []


def test_it_is_valid_with_grpo() -> None:
    """LF-6: answers of a step make whole groups."""
    function = [{"type": "length", "maxTokens": 100}]
    assert check_resolved(tuned(rows=500, method="grpo", grpo__rewardFunctions=function)[0]) == []


def test_only_that_of_the_cluster_is_reckoned() -> None:
    assert is_auto("ClusterFineTunePreset", "auto")
    assert not is_auto("FineTunePreset", "auto")
    assert not is_auto("ClusterFineTunePreset", "sft")

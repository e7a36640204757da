"""How long a training is, and what suits a dataset's size: known before anything runs."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.length import Length, evaluation_count, length_of, trained_rows
from finetune_api.models.dataset import DatasetTokens
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import resolve
from finetune_api.suggestions import batch_suggestion, share_cut, single_gpu, unsuited_length, unusual_for_rows
from tests.support.manifests import spec_of


def job(**leaves: Any) -> FineTuneJobSpec:
    """A resolved job from leaves, written with __ for dots."""
    return resolve(spec_of({path.replace("__", "."): value for path, value in leaves.items()})).spec


@pytest.mark.parametrize(
    ("leaves", "rows", "expected"),
    [
        ({"training__maxSteps": 1000, "checkpoint__steps": 100}, None, Length(1000, "steps", 10)),
        ({"training__maxSteps": 1050, "checkpoint__steps": 100}, None, Length(1050, "steps", 11)),
        ({"training__maxSteps": 1000, "checkpoint__strategy": "no"}, None, Length(1000, "steps", 0)),
        ({"training__maxSteps": 1000, "checkpoint__strategy": "epoch"}, None, Length(1000, "steps", None)),
        ({}, 1000, Length(250, "epochs", 3)),
        ({"checkpoint__strategy": "epoch"}, 1000, Length(250, "epochs", 2)),
        ({"training__maxSteps": 100, "training__maxStepsMode": "cap"}, 1000, Length(100, "steps", 1)),
        ({}, None, None),
        ({"training__maxSteps": 100, "training__maxStepsMode": "cap"}, None, None),
    ],
)
def test_steps_and_checkpoints(leaves: dict[str, Any], rows: int | None, expected: Length | None) -> None:
    """AC-27, O-15: total steps by save steps, the last step saved in any case; nothing is said that depends on rows nobody counted."""
    assert length_of(job(**leaves), rows=rows, world_size=1) == expected


def test_grpo_counts_prompts_and_their_repetitions() -> None:
    """8 answers of a step are 2 prompts of 4; each batch is learnt from twice."""
    leaves = {"method": "grpo", "grpo__rewardFunctions": [{"type": "exactMatch"}], "grpo__numGenerations": 4, "grpo__numIterations": 2}
    spec = job(**leaves, training__epochs=1)
    assert spec.grpo is not None
    assert length_of(spec, rows=100, world_size=1) == Length(100, "epochs", 1)
    with pytest.raises(ValueError, match=r"grpo\.numGenerations: 3 does not divide the 8 answers"):
        length_of(spec.model_copy(update={"grpo": spec.grpo.model_copy(update={"num_generations": 3})}), rows=100, world_size=1)


@pytest.mark.parametrize(
    ("leaves", "expected"),
    [
        ({}, 1000),
        ({"dataset__evalRatio": 0.1}, 900),
        ({"dataset__evalRatio": 0.1, "dataset__trainRatio": 0.5}, 500),
        ({"dataset__packing": True}, None),
        ({"training__backend": "optimized"}, None),
        ({"dataset__weight": 2.0}, None),
    ],
)
def test_rows_that_train(leaves: dict[str, Any], expected: int | None) -> None:
    assert trained_rows(job(**leaves), 1000) == expected


@pytest.mark.parametrize(("rows", "ratio", "expected"), [(1, 0.5, 0), (2, 0.01, 1), (10, 0.99, 9), (10, 0.0, 0), (10, 0.25, 3)])
def test_rows_that_evaluate(rows: int, ratio: float, expected: int) -> None:
    """E-16: rounded, but one at least, and one is left to train."""
    assert evaluation_count(rows, ratio) == expected


@pytest.mark.parametrize(
    ("rows", "fine", "unusual", "band"),
    [(500, (3, 10), (2, 11), "3 to 10"), (5_000, (2, 5), (1, 6), "2 to 5"), (50_000, (1, 3), (4,), "1 to 3")],
)
def test_epochs_that_suit_the_rows(rows: int, fine: tuple[int, ...], unusual: tuple[int, ...], band: str) -> None:
    """AC-13, F-19: from both sides; where steps decide, epochs do not matter."""
    assert [unusual_for_rows(job(training__epochs=epochs), rows) for epochs in fine] == ["" for _ in fine]
    for epochs in unusual:
        assert unusual_for_rows(job(training__epochs=epochs), rows) == f"training.epochs {epochs}: {band} are recommended for {rows} rows."
        assert unusual_for_rows(job(training__epochs=epochs, training__maxSteps=5), rows) == ""


@pytest.mark.parametrize(("rows", "low", "high"), [(500, 0.1, 0.2), (50_000, 0.05, 0.1)])
def test_share_to_evaluate_on_that_suits_the_rows(rows: int, low: float, high: float) -> None:
    """AC-12, E-20: of few rows more; nothing is said where a file of its own is evaluated, or of numbers between."""
    for ratio in (low, high, 0.0):
        assert unusual_for_rows(job(training__epochs=3, dataset__evalRatio=ratio), rows) == ""
    for ratio in (low / 2, high + 0.05):
        said = unusual_for_rows(job(training__epochs=3, dataset__evalRatio=ratio), rows)
        assert said == f"dataset.evalRatio {ratio:g}: {low:g} to {high:g} is recommended for {rows} rows."
    assert unusual_for_rows(job(training__epochs=3, dataset__evalRatio=0.01), 5_000) == ""


@pytest.mark.parametrize(
    ("memory", "band"), [("4Gi", "1 to 2"), ("8Gi", "2 to 4"), ("16Gi", "4 to 8"), ("24Gi", "8 to 16"), ("80Gi", "8 to 16")]
)
def test_batch_that_suits_the_gpu(memory: str, band: str) -> None:
    """AC-14, F-03: with LoRA."""
    assert batch_suggestion(job(resources__gpuMemory=memory)) == f"usual training.batchSize with LoRA on {memory}: {band}"
    assert batch_suggestion(job(resources__gpuMemory=memory, adapter__type="full")) == ""


def test_no_batch_is_suggested_for_a_gpu_nobody_named() -> None:
    assert batch_suggestion(job()) == batch_suggestion(job(resources__gpuMemory="3Gi")) == ""


@pytest.mark.parametrize(
    ("rows", "parameters", "ranks", "advised"),
    [(1000, 7.6e9, 1, False), (1000, 7.6e9, 4, True), (1001, 7.6e9, 4, False), (1000, 14e9, 4, False)],
)
def test_one_gpu_is_enough_for_little(rows: int, parameters: float, ranks: int, advised: bool) -> None:
    """AC-50, L-04: an advisory only, and only with more than one."""
    said = single_gpu(rows=rows, parameters=int(parameters), ranks=ranks)
    assert bool(said) is advised
    assert not advised or "7.6 billion parameters train on 4 GPUs" in said


def lengths(p50: int, p95: int, longest: int) -> DatasetTokens:
    """Tokens of rows that were counted."""
    return DatasetTokens(rows=2000, p50=p50, p95=p95, max=longest)


@pytest.mark.parametrize(
    ("limit", "share", "told"),
    [
        (208, "about half of them or more", "cuts rows: 904 holds all rows that were counted, 480 95 % of them."),
        (216, "about 5 % to half of them", "cuts rows: 904 holds all rows that were counted, 480 95 % of them."),
        (480, "about 5 % of them or less", "cuts rows: 904 holds all rows that were counted."),
        (904, "none of them", ""),
        (1808, "none of them", ""),
        (
            1816,
            "none of them",
            "1816 is more than rows have: 904 holds all that were counted, and bounds the GPU memory that other rows may take.",
        ),
        (0, "", "0, the model's context, is more than rows have: 904 holds all that were counted"),
    ],
)
def test_what_a_sequence_length_does_to_rows(limit: int, share: str, told: str) -> None:
    """F-08: as long as the data is, from both sides of each percentile."""
    spec, tokens = job(training__maxSeqLength=limit), lengths(210, 480, 900)
    assert share_cut(spec, tokens) == share
    said = unsuited_length(spec, tokens)
    assert told in said
    assert bool(said) is bool(told)


def test_a_length_that_suits_is_one_that_may_be_written() -> None:
    """F-07, F-08: at least 128, in steps of 8; above 8192 only with longContext."""
    assert "128 holds all" in unsuited_length(job(training__maxSeqLength=512), lengths(10, 20, 30))
    assert unsuited_length(job(training__maxSeqLength=256), lengths(10, 20, 30)) == ""
    said = unsuited_length(job(training__maxSeqLength=8192), lengths(100, 8000, 9001))
    assert "9008 holds all rows that were counted (with training.longContext)." in said


@pytest.mark.parametrize("leaves", [{"method": "pretrain"}, {"method": "grpo", "grpo__rewardFunctions": [{"type": "exactMatch"}]}])
def test_methods_that_cut_no_rows_by_length(leaves: dict[str, Any]) -> None:
    """F-08: long texts become several rows with pretrain; with grpo rows are prompts."""
    spec = job(training__maxSeqLength=128, **leaves)
    assert share_cut(spec, lengths(500, 500, 500)) == unsuited_length(spec, lengths(500, 500, 500)) == ""


def test_packed_rows_fill_any_length() -> None:
    """E-24, F-08: cut rows are told, long sequences are wanted."""
    assert unsuited_length(job(dataset__packing=True, training__maxSeqLength=4096), lengths(10, 20, 30)) == ""
    assert "cuts rows" in unsuited_length(job(dataset__packing=True, training__maxSeqLength=128), lengths(100, 200, 300))

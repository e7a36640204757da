"""Advice on resolved jobs: each threshold from both sides, and only to who wrote the value."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.advice import ATTACH_NOT_RECOMMENDED, MAX_MESSAGE, OUTSIDE_RECOMMENDED, SETTING_IGNORED, warnings_for
from finetune_api.presets import SHIPPED
from finetune_api.quantities import number_of
from finetune_api.resolve import resolve, unflatten
from tests.support.manifests import spec_of


def advice(job: dict[str, Any], preset: dict[str, Any] | None = None) -> dict[str, str]:
    """Warnings for leaves over a preset's leaves."""
    return warnings_for(resolve(spec_of(job), unflatten(preset or {})))


def test_defaults_need_no_advice() -> None:
    assert advice({}) == {}


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_presets_need_no_advice_on_gpus(name: str) -> None:
    assert warnings_for(resolve(spec_of({}), SHIPPED[name].spec)) == {}


@pytest.mark.parametrize(
    ("fine", "outside", "said"),
    [
        ({"training.batchSize": 15}, {"training.batchSize": 16}, "training.batchSize 16 is above 15"),
        ({"evaluation.batchSize": 15}, {"evaluation.batchSize": 16}, "evaluation.batchSize 16"),
        ({"training.epochs": 50}, {"training.epochs": 51}, "training.epochs 51 is above 50"),
        ({"training.learningRate": 2e-4}, {"training.learningRate": 6e-4}, "training.learningRate 0.0006 is outside"),
        (
            {"adapter.type": "full", "training.learningRate": 5e-5},
            {"adapter.type": "full", "training.learningRate": 2e-4},
            "training.learningRate 0.0002 is outside",
        ),
        ({"training.warmupRatio": 0.2}, {"training.warmupRatio": 0.21}, "training.warmupRatio 0.21 is outside 0.01 to 0.2"),
        ({"training.warmupSteps": 5000}, {"training.warmupSteps": 5001}, "training.warmupSteps 5001"),
        ({"training.maxGradNorm": 0.5}, {"training.maxGradNorm": 0.4}, "training.maxGradNorm 0.4 is outside 0.5 to 5"),
        ({"training.maxSeqLength": 8192}, {"training.maxSeqLength": 16384, "training.longContext": True}, "training.maxSeqLength 16384"),
        ({"adapter.rank": 64}, {"adapter.rank": 65}, "adapter.rank 65 is above 64"),
        ({"adapter.dropout": 0.1}, {"adapter.dropout": 0.11}, "adapter.dropout 0.11 is above 0.1"),
        ({"checkpoint.steps": 100}, {"checkpoint.steps": 101}, "checkpoint.steps 101 is above 100"),
        ({"dataset.numWorkers": 9}, {"dataset.numWorkers": 10}, "dataset.numWorkers 10 is above 9"),
        (
            {"dataset.numWorkers": 4, "resources.cpu": "4"},
            {"dataset.numWorkers": 4, "resources.cpu": "3500m"},
            "dataset.numWorkers 4 is more than the CPUs",
        ),
        ({"dataset.evalRatio": 0.19}, {"dataset.evalRatio": 0.2}, "dataset.evalRatio 0.2 leaves 80 % or less"),
        ({"dataset.trainRatio": 0.81}, {"dataset.trainRatio": 0.8}, "dataset.trainRatio 0.8 is 0.8 or less of the rows"),
        ({"dataset.trainRatio": 0.9, "dataset.evalRatio": 0.1}, {"dataset.trainRatio": 0.7}, "dataset.trainRatio 0.7"),
        ({"dataset.promptMaxLength": 2048}, {"dataset.promptMaxLength": 2049}, "dataset.promptMaxLength 2049"),
        ({"dataset.contentMaxLength": 256}, {"dataset.contentMaxLength": 255}, "dataset.contentMaxLength 255"),
    ],
)
def test_recommended_ranges(fine: dict[str, Any], outside: dict[str, Any], said: str) -> None:
    """AC-19, AC-41 and the ranges of X01, X05, X06, X09, X13-X15, X17, X20, X26, X28, F-09, F-10, F-31."""
    assert advice(fine) == {}
    assert said in advice(outside)[OUTSIDE_RECOMMENDED]


@pytest.mark.parametrize(("steps", "told"), [(99, True), (100, False), (200, False), (201, True)])
def test_evaluation_interval(steps: int, told: bool) -> None:
    """X24, only where evaluation goes by steps."""
    job = {"evaluation.strategy": "steps", "evaluation.steps": steps, "dataset.evalRatio": 0.1}
    assert (OUTSIDE_RECOMMENDED in advice(job)) is told


@pytest.mark.parametrize("is_preset", [False, True])
def test_attaching_an_adapter(is_preset: bool) -> None:
    """R-12: why it may be unstable, what it is right for, and what is better, whoever asks for it."""
    attached = {"adapter.attach.uri": "s3://models/first"}
    told = advice({}, attached) if is_preset else advice(attached)
    assert set(told) == {ATTACH_NOT_RECOMMENDED}
    for word in ("adapter.attach.uri s3://models/first", "may be unstable", "several stages", "checkpoint.resumeFrom"):
        assert word in told[ATTACH_NOT_RECOMMENDED]


@pytest.mark.parametrize(
    ("job", "said"),
    [
        ({"training.lrCosineCycles": 3}, "training.lrCosineCycles 3 counts with lrScheduler cosine_with_restarts only"),
        ({"training.epochs": 3, "training.maxSteps": 10}, "training.epochs 3 does not count: training.maxSteps decides"),
        ({"training.warmupRatio": 0.1, "training.warmupSteps": 5}, "training.warmupRatio 0.1 does not count"),
        ({"training.warmupSteps": 5, "training.lrScheduler": "constant"}, "training.warmupSteps 5 does not count"),
        ({"resources.device": "cpu", "precision.fp16": True}, "precision.fp16 true is for GPUs; on CPU float32 is used"),
        ({"resources.device": "cpu", "precision.tf32": True}, "precision.tf32"),
        ({"resources.device": "cpu", "dataset.pinMemory": True}, "dataset.pinMemory"),
        ({"resources.device": "cpu", "resources.gpusPerReplica": 2}, "resources.gpusPerReplica 2 does not count"),
        ({"adapter.peftConfig": "configmap://a/b", "adapter.rank": 8}, "adapter.rank 8 does not count: adapter.peftConfig replaces it"),
        ({"checkpoint.strategy": "no", "checkpoint.intervalMinutes": 5}, "checkpoint.intervalMinutes 5 does not count"),
        ({"checkpoint.strategy": "epoch", "checkpoint.steps": 5}, "checkpoint.steps 5 counts with"),
        ({"evaluation.steps": 150}, "evaluation.steps 150 counts with"),
        ({"earlyStopping.threshold": 0.1}, "earlyStopping.threshold 0.1 does not count"),
        ({"method": "pretrain", "dataset.promptMaxLength": 400}, "dataset.promptMaxLength 400 does not count: texts without a prompt"),
        ({"dataset.format": "text", "dataset.contentMaxLength": 400}, "dataset.contentMaxLength 400 does not count"),
        ({"model.uri": "hf://org/model", "model.secretRef.name": "keys"}, "model.secretRef.name keys does not count"),
        ({"dataset.uri": "pvc://claim/rows", "dataset.config": "small"}, "dataset.config small does not count: only datasets of the hub"),
        ({"dataset.uri": "configmap://rows/key", "dataset.split": "test"}, "dataset.split test does not count: a single file"),
        ({"dataset.uri": "pvc://claim/rows.csv", "dataset.split": "test"}, "dataset.split test does not count"),
        ({"cache.claimName": "models", "cache.sizeLimit": "1Gi"}, "cache.sizeLimit 1Gi does not count"),
    ],
)
def test_settings_without_effect(job: dict[str, Any], said: str) -> None:
    """F-17, F-22, F-27, I-02, I-04, G-10, X21 and their like: said, never silently dropped."""
    assert said in advice(job)[SETTING_IGNORED]


@pytest.mark.parametrize(
    "job",
    [
        {"model.uri": "s3://bucket/model", "model.secretRef.name": "keys"},
        {"method": "dpo", "model.uri": "hf://o/m", "model.secretRef.name": "keys", "dpo.referenceModel": "s3://bucket/model"},
        {"dataset.uri": "hf://org/rows", "dataset.config": "small", "dataset.split": "test"},
        {"dataset.uri": "pvc://claim/rows", "dataset.split": "test"},
        {"dataset.uri": "configmap://rows/key", "dataset.split": "test", "dataset.evalUri": "hf://org/rows"},
        {"dataset.uri": "configmap://rows/key", "dataset.config": "small", "dataset.additional": [{"uri": "hf://org/rows"}]},
    ],
)
def test_settings_with_effect(job: dict[str, Any]) -> None:
    """D-08, D-16, X-02: nothing is said where another address of the job heeds them."""
    assert SETTING_IGNORED not in advice(job)


def test_settings_of_a_preset_are_not_the_jobs_fault() -> None:
    assert advice({}, {"training.lrCosineCycles": 3, "evaluation.steps": 150}) == {}


def test_fp16_of_a_preset_is_told_on_cpu() -> None:
    """I-02: it would decide the numbers."""
    assert "precision.fp16" in advice({"resources.device": "cpu"}, {"precision.fp16": True})[SETTING_IGNORED]


def test_messages_fit_into_a_condition() -> None:
    job = {"adapter.peftConfig": "configmap://a/b", "adapter.targetModules": ["embed_tokens"] * 64, "training.lrCosineCycles": 3}
    job |= {"adapter.rank": 8, "adapter.alpha": 8, "training.maxSteps": 5, "training.epochs": 2}
    assert len(advice(job)[SETTING_IGNORED]) == MAX_MESSAGE


@pytest.mark.parametrize(("quantity", "number"), [("500m", 0.5), ("4", 4.0), ("1.5", 1.5), ("2k", 2000.0)])
def test_quantities(quantity: str, number: float) -> None:
    assert number_of(quantity) == number

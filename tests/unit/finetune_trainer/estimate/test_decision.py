"""What ``auto`` comes to on a GPU, and how it is said."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.resolve import resolve
from finetune_trainer.estimate.decision import Verdict, decide, lacking
from finetune_trainer.estimate.memory import GIB
from finetune_trainer.estimate.shape import AdapterShape, ModelShape
from tests.support.manifests import spec_of
from tests.support.shapes import LLAMA_8B, QWEN_14B

QV = AdapterShape(16, ["q_proj", "v_proj"])


def verdict(model: ModelShape, gib: float | None, *, ranks: int = 1, adapter: AdapterShape = QV, **leaves: Any) -> Verdict:
    spec = resolve(spec_of({path.replace("__", "."): value for path, value in leaves.items()})).spec
    return decide(spec, model, adapter, ranks=ranks, gpu_bytes=round(gib * GIB) if gib is not None else None)


def test_trainable_parameters() -> None:
    """AC-75: Llama-3.1-8B, rank 16, q_proj and v_proj."""
    assert verdict(LLAMA_8B, 80).trainable == 6_815_744


@pytest.mark.parametrize(
    ("model", "gib", "is_quantized"), [(LLAMA_8B, 16, True), (LLAMA_8B, 48, False), (QWEN_14B, 24, True), (QWEN_14B, 48, False)]
)
def test_quantization_where_the_base_would_not_fit(model: ModelShape, gib: float, is_quantized: bool) -> None:
    """AC-76, AC-77, N-02, N-03."""
    found = verdict(model, gib)
    assert found.is_quantized is is_quantized
    assert found.fits
    assert f"the GPU has {gib}.0 GiB" in found.reason
    assert ("4-bit base (QLoRA)" in found.reason) is is_quantized


def test_nothing_fits() -> None:
    """N-05."""
    found = verdict(QWEN_14B, 8)
    assert found.fits is False
    assert "still needs about" in found.reason


def test_modes_that_are_asked_for_are_kept() -> None:
    assert not verdict(LLAMA_8B, 16, quantization__mode="none").is_quantized
    assert verdict(LLAMA_8B, 80, quantization__mode="4bit").is_quantized
    assert not verdict(LLAMA_8B, 80, adapter__type="full").is_quantized


def test_strategy_auto() -> None:
    """One rank none; what fits one GPU, perhaps over a 4-bit base, ddp; what does not, zero3_offload (AC-45: one field says both)."""
    assert verdict(LLAMA_8B, 80).strategy == "none"
    assert verdict(LLAMA_8B, 80, ranks=4).strategy == "ddp"
    assert (verdict(LLAMA_8B, 16, ranks=4).strategy, verdict(LLAMA_8B, 16, ranks=4).is_quantized) == ("ddp", True)
    assert verdict(LLAMA_8B, 24, ranks=4, adapter__type="full").strategy == "zero3_offload"
    assert verdict(LLAMA_8B, 24, ranks=4, distributed__strategy="zero2").strategy == "zero2"


@pytest.mark.parametrize("strategy", ["fsdp", "zero3", "zero3_offload"])
def test_auto_takes_no_4bit_base_where_weights_are_split(strategy: str) -> None:
    """X33: nor is a 4-bit base that was asked for split by auto, which would fit no larger model; the advice names what would."""
    assert not verdict(QWEN_14B, 8, ranks=4, distributed__strategy=strategy).is_quantized
    asked = verdict(QWEN_14B, 8, ranks=4, quantization__mode="4bit")
    assert (asked.strategy, asked.is_quantized, asked.fits) == ("ddp", True, False)
    assert "zero3_offload and quantization.mode none" in lacking(asked)
    if strategy != "fsdp":
        assert verdict(QWEN_14B, 8, ranks=4, distributed__strategy=strategy, quantization__mode="4bit").is_quantized


def test_an_unknown_gpu_decides_nothing() -> None:
    found = verdict(QWEN_14B, None, ranks=2)
    assert (found.strategy, found.is_quantized, found.fits) == ("ddp", False, None)
    assert "resources.gpuMemory" in found.reason


def test_cpu_is_never_estimated() -> None:
    found = verdict(LLAMA_8B, None, resources__device="cpu")
    assert (found.memory, found.is_quantized, found.fits) == (None, False, None)
    assert verdict(LLAMA_8B, None, resources__device="cpu", quantization__mode="4bit").is_quantized

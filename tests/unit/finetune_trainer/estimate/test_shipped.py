"""What is shipped together runs together: every preset on every base model and GPU, with rows as people have them."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.base_models import SHIPPED_BASE_MODELS
from finetune_api.gpu_types import SHIPPED_GPU_TYPES
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.presets import SHIPPED
from finetune_api.quantities import number_of
from finetune_api.resolve import resolve
from finetune_trainer.estimate.decision import Verdict, decide
from finetune_trainer.estimate.memory import GIB
from finetune_trainer.estimate.shape import ModelShape, adapter_shape
from tests.support.jobs import merge
from tests.support.shapes import LLAMA_8B, SHIPPED_SHAPES

DIALOGUE = 700
"""Tokens of the longest row of an ordinary chat dataset."""
JOB: dict[str, Any] = {"model": {"uri": "hf://org/model"}, "dataset": {"uri": "hf://org/data"}, "method": "sft"}


def job(preset: str, gpu: str, base: str | None = None, **changes: Any) -> FineTuneJobSpec:
    defaults = SHIPPED_BASE_MODELS[base].get("defaults", {}) if base is not None else {}
    whole = merge(merge(JOB, defaults), SHIPPED[preset].spec)
    if whole["method"] == "grpo":
        whole = merge(whole, {"grpo": {"rewardFunctions": [{"type": "exactMatch"}]}})
    return resolve(merge(merge(whole, {"resources": {"gpuMemory": SHIPPED_GPU_TYPES[gpu]["memory"]}}), changes)).spec


def judge(spec: FineTuneJobSpec, model: ModelShape, longest_row: int | None = None) -> Verdict:
    memory = int(number_of(spec.resources.gpu_memory or ""))
    return decide(spec, model, adapter_shape(spec.adapter, None), ranks=1, gpu_bytes=memory, longest_row=longest_row)


def surely_needed(spec: FineTuneJobSpec, model: ModelShape) -> float:
    """Bytes that do on any reckoning: weights, what training adds to those that are trained, and much room for activations."""
    lora = 3.0 if spec.quantization.mode == "none" else 1.2
    per_parameter = lora if spec.adapter.type == "lora" else 20.0
    return per_parameter * model.parameters + 8 * GIB


def test_every_shipped_base_model_has_its_shape() -> None:
    assert SHIPPED_SHAPES.keys() == {name for name, entry in SHIPPED_BASE_MODELS.items() if entry.get("eligible", True)}
    for name, shape in SHIPPED_SHAPES.items():
        assert shape.parameters == pytest.approx(SHIPPED_BASE_MODELS[name]["parameters"], rel=0.1), name


@pytest.mark.parametrize("preset", sorted(SHIPPED))
def test_nothing_is_refused_that_surely_fits(preset: str) -> None:
    """N-01, N-05, K-12: rows of up to 700 tokens; a base stored in 4 bits too."""
    judged = 0
    for base, model in SHIPPED_SHAPES.items():
        for gpu in SHIPPED_GPU_TYPES:
            spec = job(preset, gpu, base, **({"adapter": {"type": "lora"}} if model.is_quantized else {}))
            verdict = judge(spec, model, DIALOGUE)
            assert verdict.memory is not None
            if verdict.available is not None and surely_needed(spec, model) <= verdict.available:
                judged += 1
                assert verdict.fits, f"{preset}, {base}, {gpu}: {verdict.reason}"
    assert judged, "the room asked for is not so much that nothing is judged"


@pytest.mark.parametrize("gpu", ["a100-80", "h100"])
def test_lora_chat_of_8_billion_parameters_fits_80_gb_whatever_the_rows(gpu: str) -> None:
    """X09, F-34: 0 is the context of 131072 tokens, bounded to 8192 without longContext."""
    verdict = judge(job("lora-chat", gpu), LLAMA_8B)
    assert verdict.fits, verdict.reason
    assert (verdict.sequence, verdict.is_quantized) == (8192, False)
    long = judge(job("lora-chat", gpu, training={"longContext": True}), LLAMA_8B)
    assert (long.sequence, long.fits) == (131072, False)


def test_rows_that_were_counted_bound_the_length() -> None:
    """N-01: short rows are not reckoned as the limit; packed ones fill it, and longer ones are cut."""
    assert judge(job("lora-chat", "l4"), LLAMA_8B, DIALOGUE).sequence == DIALOGUE
    assert judge(job("lora-chat", "l4"), LLAMA_8B, 10_000).sequence == 8192
    assert judge(job("lora-chat", "l4", dataset={"packing": True}), LLAMA_8B, DIALOGUE).sequence == 8192
    assert judge(job("sft", "l4"), LLAMA_8B, DIALOGUE).sequence == 512
    short, unknown = (judge(job("lora-chat", "h100"), LLAMA_8B, rows).memory for rows in (DIALOGUE, None))
    assert short is not None
    assert unknown is not None
    assert short.activations < unknown.activations / 10

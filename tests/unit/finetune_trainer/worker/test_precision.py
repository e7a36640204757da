"""Number formats by spec and device (I-01 to I-04)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.precision import Device, resolve_formats
from tests.unit.finetune_trainer.worker.conftest import MakeSpec

CPU, AMPERE, TURING = Device("cpu"), Device("gpu", "A100"), Device("gpu", "T4", has_bfloat16=False)


@pytest.mark.parametrize(
    ("device", "precision", "adapter", "expected"),
    [
        (CPU, {}, "lora", ("float32", "float32", "no")),
        (AMPERE, {}, "lora", ("bfloat16", "bfloat16", "no")),
        (TURING, {}, "lora", ("float16", "float16", "fp16")),
        (TURING, {}, "full", ("float16", "float32", "fp16")),
        (AMPERE, {"dtype": "float16"}, "full", ("float16", "float32", "fp16")),
        (AMPERE, {"dtype": "float32", "bf16": True}, "full", ("float32", "float32", "bf16")),
        (AMPERE, {"dtype": "float32", "fp16": True}, "full", ("float32", "float32", "fp16")),
        (AMPERE, {"fp16": True}, "lora", ("float16", "float16", "fp16")),
        (AMPERE, {"fp16": True}, "full", ("float16", "float32", "fp16")),
        (CPU, {"bf16": True}, "lora", ("float32", "float32", "bf16")),
        (CPU, {"dtype": "bfloat16"}, "lora", ("bfloat16", "bfloat16", "no")),
    ],
)
def test_formats(make_spec: MakeSpec, device: Device, precision: dict[str, Any], adapter: str, expected: tuple[str, str, str]) -> None:
    """(resolved dtype, format the model is loaded in, autocast); what is trained in half precision has float32 weights."""
    spec = make_spec(precision=precision, adapter={"type": adapter})
    formats = resolve_formats(spec, device, None)
    assert (formats.dtype, formats.weights, formats.autocast) == expected
    assert not formats.warnings


@pytest.mark.parametrize("precision", [{"fp16": True}, {"tf32": True}, {"dtype": "float16"}])
def test_ignored_on_cpu_with_a_warning(make_spec: MakeSpec, precision: dict[str, Any]) -> None:
    """I-02: ignored, and said."""
    formats = resolve_formats(make_spec(precision=precision), CPU, None)
    assert (formats.weights, formats.autocast, formats.tf32) == ("float32", "no", False)
    (message,) = formats.warnings.values()
    assert "ignored on CPU" in message


@pytest.mark.parametrize("precision", [{"bf16": True}, {"tf32": True}, {"dtype": "bfloat16"}])
def test_refused_before_ampere(make_spec: MakeSpec, precision: dict[str, Any]) -> None:
    """AC-23: the field and the GPU are named."""
    with pytest.raises(TrainerError, match=r"precision\.(bf16|tf32|dtype bfloat16): T4 is older than Ampere"):
        resolve_formats(make_spec(precision=precision), TURING, None)


def test_a_pinned_dtype_stands_for_auto(make_spec: MakeSpec) -> None:
    """Another GPU must not change a run; a format written in the spec needs no pin."""
    assert resolve_formats(make_spec(), AMPERE, "float16").dtype == "float16"
    assert resolve_formats(make_spec(precision={"dtype": "float32"}), AMPERE, "float32").dtype == "float32"
    assert resolve_formats(make_spec(precision={"fp16": True}), AMPERE, "bfloat16").dtype == "float16"
    with pytest.raises(TrainerError, match="T4 is older than Ampere"):
        resolve_formats(make_spec(), TURING, "bfloat16")

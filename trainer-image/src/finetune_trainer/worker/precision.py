"""Number formats: from the spec and the device to what is loaded, trained and autocast."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.strategies import is_quantized
from finetune_trainer.errors import configuration_error

Dtype: TypeAlias = Literal["bfloat16", "float16", "float32"]


@dataclass(frozen=True)
class Device:
    """What the formats depend on."""

    kind: Literal["cpu", "gpu"]
    name: str = "cpu"
    has_bfloat16: bool = True
    """Ampere or newer; a CPU computes it in software."""


@dataclass(frozen=True)
class Formats:
    """What is used."""

    dtype: Dtype
    """Resolved ``precision.dtype``."""
    weights: Dtype
    """Format the base model is loaded in."""
    autocast: Literal["no", "bf16", "fp16"]
    tf32: bool
    is_quantized: bool = False
    """The base model is held in 4 bits; the rest of it in :attr:`weights`."""
    warnings: dict[str, str] = field(default_factory=dict)

    @property
    def half(self) -> Literal["no", "bf16", "fp16"]:
        """Half precision for a library that keeps float32 master weights itself, as DeepSpeed does, and wants no autocast."""
        return "bf16" if self.autocast == "no" and self.dtype == "bfloat16" else self.autocast


def resolve_formats(spec: FineTuneJobSpec, device: Device, pinned: str | None, pinned_quantization: str | None = None) -> Formats:
    """Decide the number formats (I-01 to I-07).

    ``pinned`` and ``pinned_quantization`` are what the first attempt used: they stand for ``auto`` later, so that another GPU cannot
    change a run under its user. Raises :class:`TrainerError` (ConfigurationError) when the device cannot do what is asked.
    """
    precision = spec.precision
    dtype = _dtype(spec, device, pinned)
    warnings = {}
    fp16, bf16, tf32 = precision.fp16, precision.bf16, precision.tf32
    if device.kind == "cpu":
        if fp16:
            warnings["Fp16Ignored"] = "precision.fp16 is ignored on CPU: training runs in float32"
        if tf32:
            warnings["Tf32Ignored"] = "precision.tf32 is ignored on CPU"
        if dtype == "float16":
            warnings["Fp16Ignored"] = "precision.dtype float16 is ignored on CPU: training runs in float32"
            dtype = "float32"
        fp16 = tf32 = False
    elif not device.has_bfloat16 and (bf16 or tf32 or dtype == "bfloat16"):
        name = "precision.bf16" if bf16 else "precision.tf32" if tf32 else "precision.dtype bfloat16"
        raise configuration_error(f"{name}: {device.name} is older than Ampere and has no bfloat16 or TF32; use precision.fp16")
    autocast: Literal["no", "bf16", "fp16"] = "bf16" if bf16 else "fp16" if fp16 or dtype == "float16" else "no"
    # Gradients of float16 weights cannot be unscaled: whatever is trained stays float32, and full training trains everything.
    weights: Dtype = "float32" if dtype == "float16" and spec.adapter.type == "full" else dtype
    return Formats(dtype, weights, autocast, tf32, is_quantized(spec.quantization.mode, pinned_quantization), warnings)


def _dtype(spec: FineTuneJobSpec, device: Device, pinned: str | None) -> Dtype:
    wanted: str = spec.precision.dtype
    if wanted == "auto" and device.kind == "gpu" and spec.precision.fp16:
        wanted = "float16"  # the gradient scaler that comes with it knows no bfloat16
    elif wanted == "auto":
        wanted = pinned or ("float32" if device.kind == "cpu" else "bfloat16" if device.has_bfloat16 else "float16")
    match wanted:
        case "bfloat16" | "float16" | "float32":
            return wanted
        case _:
            raise configuration_error(f"precision.dtype: the first attempt recorded {wanted!r}, which is no known format")

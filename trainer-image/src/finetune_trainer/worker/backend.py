"""``training.backend: optimized``: the same training, computed faster. What cannot be had here is named, and training goes on without it.

Parts: packed rows attend by their bounds (:mod:`.varlen`), layers run in fused kernels (liger-kernel, where it is installed), and the
optimizer steps all parameters in one kernel.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Final

from transformers import PreTrainedModel

from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.worker import varlen
from finetune_trainer.worker.precision import Device, Formats

ATTENTION: Final = "attention without padding"
LAYERS: Final = "fused layer kernels"
OPTIMIZER: Final = "fused optimizer"
FUSED_OPTIMIZERS: Final = {"adamw_torch": "adamw_torch_fused"}
"""8-bit optimizers are fused as they are; the others have no fused form."""
OWN_ATTENTION: Final = {
    "attn_logit_softcapping": "caps its attention scores",
    "attention_dropout": "drops attention scores out",
    "attention_chunk_size": "attends in chunks",
}
"""What a model's config may ask of attention that the kernel does not do."""
SINKS: Final = frozenset({"gpt_oss"})
"""Types of models whose attention has sinks."""


@dataclass
class Backend:
    """Parts that are in use, and why the others are not."""

    used: list[str] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, str]:
        """Return what status shows: the operator makes the condition OptimizedBackend of it."""
        return {
            "backend": "optimized",
            "backendParts": ", ".join(self.used),
            "backendMissing": "; ".join(f"{part}: {reason}" for part, reason in self.missing.items()),
        }

    def take(self, part: str, reason: str | None) -> bool:
        """Note a part as used, or as missing where there is a reason."""
        if reason is None:
            self.used.append(part)
        else:
            self.missing[part] = reason
        return reason is None


def optimizer_name(spec: FineTuneJobSpec) -> str:
    """Return transformers' name of the optimizer."""
    optimizer = spec.training.optimizer
    return FUSED_OPTIMIZERS.get(optimizer, optimizer) if spec.training.backend == "optimized" else optimizer


def optimize(spec: FineTuneJobSpec, model: PreTrainedModel, device: Device, formats: Formats) -> Backend:
    """Set the model up, before an adapter is put on it."""
    backend = Backend()
    if spec.dataset.packing and backend.take(ATTENTION, why_no_attention(model, device, formats)):
        varlen.register()
        model.set_attn_implementation(varlen.NAME)
    if backend.take(LAYERS, why_no_layers(model.config.model_type, device)):
        _fuse_layers(model)
    if spec.training.optimizer in FUSED_OPTIMIZERS:
        backend.take(OPTIMIZER, None)
    return backend


def why_no_attention(model: PreTrainedModel, device: Device, formats: Formats) -> str | None:
    """Return why packed rows need the stock attention with its mask; None where they do not."""
    config = model.config.get_text_config()
    asked = [reason for name, reason in OWN_ATTENTION.items() if getattr(config, name, None)]
    if asked or config.model_type in SINKS:
        return f"{config.model_type} {asked[0] if asked else 'has attention sinks'}, which the kernel cannot do"
    if not model._supports_attention_backend:  # noqa: SLF001  # transformers' own mark, there is no public one
        return f"{config.model_type} does not let its attention be chosen"
    if device.kind == "gpu" and not device.has_bfloat16:
        return f"{device.name} is older than Ampere"
    if device.kind == "gpu" and formats.weights == "float32" and formats.autocast == "no":
        return "the kernel computes in 16 bits, and precision asks for float32"
    return None


def why_no_layers(model_type: str, device: Device) -> str | None:
    """Return why layers run in torch's own kernels; None where they do not."""
    if device.kind == "cpu":
        return "the kernels are made for GPUs"
    if find_spec("liger_kernel") is None:
        return "liger-kernel is not in the image"
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    return None if model_type in MODEL_TYPE_TO_APPLY_LIGER_FN else f"liger-kernel does not know {model_type}"


def _fuse_layers(model: PreTrainedModel) -> None:
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    # The loss has a fused head of its own (TRL's).
    _apply_liger_kernel_to_instance(model=model, fused_linear_cross_entropy=False)

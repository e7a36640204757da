"""Base models whose files hold quantised weights: what a job may do with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from finetune_api.contract.failures import FailureClass
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.errors import TrainerError, configuration_error

ENTRY: Final = "quantization_config"
"""Of a config.json."""


def stored_quantization(config: Mapping[str, Any]) -> str | None:
    """Return how a model's weights are stored, by its config.json: ``4bit``, or the method's name for every other; None: not quantised."""
    found = config.get(ENTRY)
    if not isinstance(found, Mapping):
        return None
    method = str(found.get("quant_method") or "bitsandbytes")
    return "4bit" if method == "bitsandbytes" and found.get("load_in_4bit") else method


def check_stored_quantization(spec: FineTuneJobSpec, config: Mapping[str, Any]) -> None:
    """Refuse what a base model that is stored in 4 bits cannot be used for (X32); it counts as ``quantization.mode`` 4bit.

    Raises :class:`TrainerError` (ConfigurationError) naming field, value and fix.
    """
    if stored_quantization(config) != "4bit":
        return
    stored = "the model of model.uri is stored in 4 bits (bitsandbytes)"
    if spec.adapter.type == "full":
        raise configuration_error(
            f"adapter.type: full, but {stored}: such weights cannot be trained; set adapter.type to lora, or name the unquantised model"
        )
    if spec.distributed.strategy == "fsdp":
        raise configuration_error(
            f"distributed.strategy: fsdp, but {stored}: FSDP cannot split such weights; choose ddp or zero2, or name the unquantised model"
        )
    if spec.quantization.mode == "none":
        raise configuration_error(f"quantization.mode: none, but {stored}; set it to auto or 4bit, or name the unquantised model")


def check_mergeable(config: Mapping[str, Any]) -> None:
    """Refuse outputs that need the adapter merged into a base model that is stored quantised.

    Raises :class:`TrainerError` (ModelError).
    """
    if (stored := stored_quantization(config)) is not None:
        method = config[ENTRY].get("quant_method") or stored
        raise TrainerError(
            FailureClass.MODEL,
            f"output: the base model is stored quantised ({method}); no adapter can be merged "
            "into it; name the unquantised model in model.uri, or leave output.merge and output.export.gguf out",
        )

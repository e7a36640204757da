"""LoRA: which modules get an adapter, and with what shape."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

import torch
from peft import LoraConfig
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from finetune_api.contract.failures import FailureClass
from finetune_api.models.spec import LORA_MODULES, Adapter
from finetune_trainer.errors import TrainerError, configuration_error

ATTENTION: Final = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP: Final = ("gate_proj", "up_proj", "down_proj")
SHORTHANDS: Final[dict[str, tuple[str, ...]]] = {"basic": ("q_proj", "v_proj"), "enhanced": ATTENTION, "full": ATTENTION + MLP}
ALL_LINEAR: Final = "all-linear"
ADAPTABLE: Final = (torch.nn.Linear, torch.nn.Embedding, Conv1D)


def lora_config(adapter: Adapter, model: PreTrainedModel, peft_config: Path | None) -> LoraConfig:
    """Build the LoRA configuration from the spec, or from a PEFT file that replaces it (G-02 to G-10).

    Raises :class:`TrainerError`: ModelError when a module is not in the model, ConfigurationError for a file that cannot be used.
    """
    config = _from_file(peft_config) if peft_config is not None else _from_spec(adapter, adaptable_modules(model))
    wanted = config.target_modules
    if isinstance(wanted, Iterable) and not isinstance(wanted, str):
        check_modules(wanted, adaptable_modules(model))
    return config


def adaptable_modules(model: torch.nn.Module) -> set[str]:
    """Last names of the modules an adapter can sit on."""
    return {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, ADAPTABLE)}


def target_modules(adapter: Adapter) -> list[str] | str:
    """Spell out a shorthand; ``all-linear`` is PEFT's own word.

    Raises :class:`TrainerError` (ConfigurationError) for a name that is not known and not allowed.
    """
    names = adapter.target_modules
    if names == [ALL_LINEAR]:
        return ALL_LINEAR
    if len(names) == 1 and names[0] in SHORTHANDS:
        return list(SHORTHANDS[names[0]])
    unknown = [name for name in names if name not in LORA_MODULES]
    if unknown and not adapter.allow_custom_modules:
        raise configuration_error(
            f"adapter.targetModules: {', '.join(unknown)} is none of {', '.join(LORA_MODULES)}, basic, enhanced, full (each alone), all-linear; "
            "set adapter.allowCustomModules for other modules of the model"
        )
    return list(names)


def check_modules(wanted: Iterable[str], available: Collection[str]) -> None:
    """Refuse modules the model does not have.

    Raises :class:`TrainerError` (ModelError) listing those it has.
    """
    missing = sorted(name for name in wanted if name.rpartition(".")[2] not in available)
    if missing:
        raise TrainerError(
            FailureClass.MODEL,
            f"adapter.targetModules: the model has no module named {', '.join(missing)}; it has {', '.join(sorted(available))}, or use all-linear",
        )


def _from_spec(adapter: Adapter, available: Collection[str]) -> LoraConfig:
    targets = target_modules(adapter)
    if isinstance(targets, list):
        check_modules(targets, available)
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha or adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def _from_file(file: Path) -> LoraConfig:
    try:
        document = json.loads(file.read_text())
        kind = document.pop("peft_type", "LORA")
        if kind != "LORA":
            raise configuration_error(f"adapter.peftConfig: peft_type must be LORA, found {kind}")
        # Facts of the file's own model and of an adapter in use; this one is trained, on our model.
        for name in ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version"):
            document.pop(name, None)
        return LoraConfig(**{"task_type": "CAUSAL_LM", **document})
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise configuration_error(f"adapter.peftConfig: {file.name} is no usable adapter_config.json: {error}") from error

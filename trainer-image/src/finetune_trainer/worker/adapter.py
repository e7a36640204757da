"""LoRA: the adapter's shape, from the spec or from a PEFT file."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import PreTrainedModel, set_seed
from transformers.pytorch_utils import Conv1D

from finetune_api.contract.failures import FailureClass
from finetune_api.models.sources import ModelType
from finetune_api.models.spec import Adapter
from finetune_api.resolve import ATTACHED
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.sources.adapter_directory import ADAPTER_WEIGHTS
from finetune_trainer.targets import check_modules, target_modules
from finetune_trainer.vision import is_vision
from finetune_trainer.worker.sight import extend_to_vision, restrict_to_language

ADAPTABLE: Final = (torch.nn.Linear, torch.nn.Embedding, Conv1D)
NOT_OURS: Final = ("base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version")
"""Entries of a PEFT file that tell of its own model and use; the adapter made from it is trained, on our model."""


class BaseName(NamedTuple):
    """Under which others find the base model of an adapter; a local path would mean nothing to them."""

    name: str
    revision: str | None


def lora_config(
    adapter: Adapter, model: PreTrainedModel, peft_config: Path | None, task: str = "CAUSAL_LM", *, sees: ModelType | None = None
) -> LoraConfig:
    """Build the LoRA configuration (G-02 to G-10); a PEFT file replaces the other adapter fields.

    ``task`` is PEFT's name of what the model does, which decides what is trained beside the adapter (a new score head). ``sees`` is for
    vision-language models: LLM keeps the adapter off the vision part, VLM puts it there too.

    Raises :class:`TrainerError`: ModelError when a module is not in the model, ConfigurationError for names and files that cannot be used.
    """
    field = "adapter.peftConfig" if adapter.attach is None else ATTACHED
    config = _from_file(peft_config, field) if peft_config is not None else _from_spec(adapter)
    config.task_type = task
    wanted = config.target_modules
    if isinstance(wanted, Iterable) and not isinstance(wanted, str):
        check_modules(wanted, adaptable_modules(model, language_only=sees is not None))
    if sees == "LLM":
        restrict_to_language(config)
    elif sees == "VLM" and peft_config is None:
        extend_to_vision(config, model)
    return config


def adaptable_modules(model: torch.nn.Module, *, language_only: bool = False) -> set[str]:
    """Last names of the modules an adapter can sit on."""
    modules = ((name, module) for name, module in model.named_modules() if not (language_only and is_vision(name)))
    return {name.rpartition(".")[2] for name, module in modules if isinstance(module, ADAPTABLE)}


def add_adapter(model: PreTrainedModel, config: LoraConfig, seed: int, base: BaseName, *, keeps_dtype: bool) -> PeftModel:
    """Put a new adapter on the model, its weights drawn from ``seed``; it remembers the model by the name its users know.

    ``keeps_dtype`` leaves the adapter in the model's number format instead of float32.
    """
    set_seed(seed)
    adapted = get_peft_model(model, config, autocast_adapter_dtype=not keeps_dtype)
    own = adapted.peft_config["default"]
    own.base_model_name_or_path = base.name
    own.revision = base.revision
    if isinstance(own.target_modules, set):
        own.target_modules = sorted(own.target_modules)  # a set's order changes from process to process, the adapter's bytes must not
    return adapted


def attach_weights(model: PeftModel, directory: Path) -> None:
    """Give a new adapter the weights of an existing one of the same shape, in its own number format.

    Raises :class:`TrainerError` (ModelError) naming a matrix that is missing, left over or of another size.
    """
    given, own = load_file(directory / ADAPTER_WEIGHTS), get_peft_model_state_dict(model, save_embedding_layers=False)
    shapes = [{name: list(values.shape) for name, values in weights.items()} for weights in (given, own)]
    wrong = sorted(name for name in shapes[0].keys() | shapes[1].keys() if shapes[0].get(name) != shapes[1].get(name))
    if wrong:
        found, needed = (known.get(wrong[0], "missing") for known in shapes)
        others = f" ({len(wrong) - 1} more do not fit)" if len(wrong) > 1 else ""
        raise TrainerError(
            FailureClass.MODEL,
            f"{ATTACHED}: the adapter was made for another model than model.uri: {wrong[0]} is {found} in the adapter and {needed} in the "
            f"model{others}",
        )
    set_peft_model_state_dict(model, given)


def public_name(model_uri: str) -> BaseName:
    """Return the name a base model is known by: the hub's own for ``hf://``, the URI itself for all else."""
    if not model_uri.startswith("hf://"):
        return BaseName(model_uri, None)
    name, _, revision = model_uri.removeprefix("hf://").partition("@")
    return BaseName(name, revision or None)


def _from_spec(adapter: Adapter) -> LoraConfig:
    return LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha or adapter.rank,
        lora_dropout=adapter.dropout,
        target_modules=target_modules(adapter),
    )


def _from_file(file: Path, field: str) -> LoraConfig:
    try:
        document = json.loads(file.read_text())
        kind = document.pop("peft_type", "LORA")
        if kind != "LORA":
            raise configuration_error(f"{field}: peft_type must be LORA, found {kind}")
        settings = {name: value for name, value in document.items() if name not in NOT_OURS}
        return LoraConfig(**settings)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise configuration_error(f"{field}: {file.name} is no usable adapter_config.json: {error}") from error

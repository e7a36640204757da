"""Loads what a job has trained, and merges an adapter into its base model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel
from transformers.utils import logging

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.stored_quantization import check_mergeable
from finetune_trainer.vision import PROCESSOR_FILES, VIDEO_PROCESSOR_FILE, has_vision, read_config

SHARD_SIZE: Final = "5GB"
TOKENIZER_FILES: Final = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json", *PROCESSOR_FILES, VIDEO_PROCESSOR_FILE,
)  # fmt: skip
"""Tokenizer and image processor."""


def load_final(base_dir: Path | None, final_dir: Path, *, runs_code: bool = False) -> PreTrainedModel | PeftModel:
    """Load the final weights in the precision of the base model: an adapter on its base, or a whole model.

    Raises :class:`TrainerError` (ModelError) when they cannot be loaded, or the base holds quantised weights.
    """
    if base_dir is not None:
        check_mergeable(read_config(base_dir))
    return load_weights(base_dir, final_dir, "output", dtype="auto", trust_remote_code=runs_code)


def load_weights(base_dir: Path | None, final_dir: Path, what: str, **options: Any) -> PreTrainedModel | PeftModel:
    """Load an adapter on its base, or a whole model; ``options`` are those of ``from_pretrained``, ``what`` begins the error.

    Raises :class:`TrainerError` (ModelError) when they cannot be loaded.
    """
    logging.disable_progress_bar()
    directory = base_dir or final_dir
    try:
        model: PreTrainedModel = loader_of(directory).from_pretrained(directory, local_files_only=True, **options)
        return model if base_dir is None else PeftModel.from_pretrained(model, str(final_dir), local_files_only=True)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).strip().partition("\n")[0][:300]
        raise TrainerError(FailureClass.MODEL, f"{what}: the final weights cannot be loaded: {reason}") from error


def loader_of(directory: Path) -> Any:
    """Transformers' class for the whole model in a directory: with its vision part where it has one."""
    return AutoModelForImageTextToText if has_vision(read_config(directory)) else AutoModelForCausalLM


def save_merged(model: PeftModel, final_dir: Path, directory: Path) -> None:
    """Merge in place, in the base's precision, and write the model with its tokenizer. A merge that gives NaN is an error."""
    try:
        merged = model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise TrainerError(FailureClass.MODEL, f"output.merge: {error}") from error
    merged.save_pretrained(directory, max_shard_size=SHARD_SIZE)
    copy_tokenizer(final_dir, directory)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy the tokenizer the model was trained with, byte by byte."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)

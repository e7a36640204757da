"""The tokenizer, read from a local directory, and the context length of the model it belongs to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError, configuration_error

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNBOUNDED: Final = 10**9
"""A tokenizer without a limit of its own says a huge number."""


def load_tokenizer(directory: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer as any user of the model would.

    Raises :class:`TrainerError` (ModelError) when the directory has none.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).partition("\n")[0]
        raise TrainerError(FailureClass.MODEL, f"model.tokenizer: no usable tokenizer in {directory.name}: {reason}") from error
    if tokenizer.eos_token is None:
        raise TrainerError(
            FailureClass.MODEL, f"model.tokenizer: the tokenizer in {directory.name} has no eos_token; set it in tokenizer_config.json"
        )
    return tokenizer


def sequence_length(max_seq_length: int, tokenizer: PreTrainedTokenizerBase, directory: Path) -> int:
    """Return the longest sequence in tokens: the field's value, or the model's context for 0.

    Raises :class:`TrainerError` (ConfigurationError) when the context is not known.
    """
    if max_seq_length > 0:
        return max_seq_length
    config = directory / "config.json"
    if config.is_file():
        document = json.loads(config.read_text())
        for part in (document, document.get("text_config") or {}):
            if isinstance(part.get("max_position_embeddings"), int):
                return int(part["max_position_embeddings"])
    if tokenizer.model_max_length < UNBOUNDED:
        return int(tokenizer.model_max_length)
    raise configuration_error("training.maxSeqLength: 0 means the model's context, and its config.json names none; set a number of tokens")

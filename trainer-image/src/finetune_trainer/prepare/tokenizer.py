"""The tokenizer, read from a local directory, and the context length of the model it belongs to."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from finetune_api.contract.failures import FailureClass
from finetune_api.length import LONG, longest_sequence
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.sources.model_code import TOKENIZER_CONFIG, code_references
from finetune_trainer.sources.model_directory import CONFIG

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNBOUNDED: Final = 10**9
"""A tokenizer without a limit of its own says a huge number."""


def load_tokenizer(directory: Path, chat_template: str | None = None, *, runs_code: bool = False) -> PreTrainedTokenizerBase:
    """Load the tokenizer as any user of the model would; ``chat_template`` takes the place of its own.

    Code beside it is run only with ``runs_code``.

    Raises :class:`TrainerError`: ModelError when the directory has none, ConfigurationError for a template that is no Jinja.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=runs_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        if not runs_code:
            refuse_own_code(directory)
        reason = str(error).partition("\n")[0]
        raise TrainerError(FailureClass.MODEL, f"model.tokenizer: no usable tokenizer in {directory.name}: {reason}") from error
    if tokenizer.eos_token is None:
        raise TrainerError(
            FailureClass.MODEL, f"model.tokenizer: the tokenizer in {directory.name} has no eos_token; set it in tokenizer_config.json"
        )
    if chat_template is not None:
        tokenizer.chat_template = chat_template
        _check_chat_template(tokenizer)
    return tokenizer


def refuse_own_code(directory: Path) -> None:
    """Raise ConfigurationError for a model that only its own code can load, in a job that does not run such code."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    for name in (CONFIG, TOKENIZER_CONFIG):
        file = directory / name
        document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        named, references = document.get("auto_map") or (), code_references(document)
        is_known = document.get("model_type") in CONFIG_MAPPING_NAMES if name == CONFIG else "AutoTokenizer" not in named
        if references and not is_known:
            raise configuration_error(
                f"model.uri: {name} names code of the model's own ({references[0]}), without which it cannot be loaded; set "
                "model.trustRemoteCode to true, if you trust it and the administrator allows it"
            )


def _check_chat_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse ``dataset.chatTemplate`` when it is no template; which conversations it takes is for the rows to show."""
    from jinja2 import TemplateError, TemplateSyntaxError

    try:
        tokenizer.apply_chat_template([{"role": "user", "content": ""}], tokenize=False)
    except TemplateSyntaxError as error:
        raise configuration_error(f"dataset.chatTemplate, line {error.lineno}: no valid Jinja template: {error.message}") from error
    except (TemplateError, TypeError, ValueError, KeyError):
        return


def import_transformers_without_torch() -> None:
    """Transformers imports torch wherever it is installed (5 s, 300 MB); rows need none of it. It looks once and keeps the answer.

    None in ``sys.modules`` makes a module not importable. It must not stay there: datasets takes the bare entry for a torch that is
    loaded, and imports it. Without effect where either is imported already.
    """
    if "transformers" in sys.modules or "torch" in sys.modules:
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    import transformers

    assert not transformers.is_torch_available()
    del sys.modules["torch"]


def sequence_length(spec: FineTuneJobSpec, tokenizer: PreTrainedTokenizerBase, directory: Path) -> int:
    """Return the longest sequence in tokens: ``training.maxSeqLength``, for 0 the model's context within what is allowed.

    Raises :class:`TrainerError` (ConfigurationError) when the context is not known, or a long one is exceeded (X09).
    """
    asked, context = spec.training.max_seq_length, model_context(directory)
    if asked > LONG and context is not None and asked > context:
        raise configuration_error(
            f"training.maxSeqLength: {asked} is above the model's context of {context} tokens; lower it, or write 0 for all of it"
        )
    if asked == 0 and context is None:
        context = int(tokenizer.model_max_length) if tokenizer.model_max_length < UNBOUNDED else None
        if context is None:
            raise configuration_error(
                "training.maxSeqLength: 0 means the model's context, and its config.json names none; set a number of tokens"
            )
    limit = longest_sequence(spec, context)
    assert limit is not None, "either is known by now"
    return limit


def model_context(directory: Path) -> int | None:
    """Tokens the model was made for, as the config.json of a directory says; None where it does not."""
    config = directory / "config.json"
    document = json.loads(config.read_text()) if config.is_file() else {}
    for part in (document, document.get("text_config") or {}):
        if isinstance(part.get("max_position_embeddings"), int):
            return int(part["max_position_embeddings"])
    return None

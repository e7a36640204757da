"""Which format the rows of a source have: said by the spec, or found in the first row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from finetune_api.models.sources import DataSource
from finetune_trainer.prepare.formats.fields import is_structure, names, structured
from finetune_trainer.prepare.formats.turns import looks_like_sharegpt
from finetune_trainer.prepare.rows import Row, data_error

Format: TypeAlias = Literal["messages", "sharegpt", "alpaca", "prompt-completion", "preference", "openai-dpo", "text"]
TEXT: Final = "text"
MESSAGES: Final = "messages"
CONVERSATIONS: Final = ("conversations", "conversation")
PROMPTS: Final = ("prompt", "query", "question", "instruction", "problem", "input")
COMPLETIONS: Final = ("completion", "response", "answer", "output", "solution")
"""Names of columns in the order they are looked for; the pairs of ms-swift's and axolotl's documentation are among them."""
CHOSEN: Final = ("chosen", "chosen_response")
REJECTED: Final = ("rejected", "rejected_response")
REJECTED_BESIDE_MESSAGES: Final = ("rejected", "rejected_response", "rejected_messages")
RANKED: Final = "answers"
"""Column with answers and their ranks, of Nectar."""
LABELS: Final = ("label", "kto_tag")
RESERVED: Final = frozenset(
    {"prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments", "image", "images"}
)
"""Names the library calls reward functions with; no column of a row of grpo may have one of them."""
PREFERENCE_METHODS: Final = frozenset({"dpo", "reward"})


@dataclass(frozen=True)
class Layout:
    """How the rows of a source are read."""

    format: Format
    prompt: str = "prompt"
    """Column with the input, for ``prompt-completion`` and ``preference``."""
    completion: str = "completion"
    chosen: str | None = None
    """Column with the better answer where the spec names it."""


def find_layout(row: Row, source: DataSource, method: str) -> Layout:
    """Decide by the spec and, where it says auto, by the first row.

    Raises :class:`TrainerError` (DataError) that names the columns present when no format fits.
    """
    declared = source.format or "auto"
    if source.prompt_column is not None or source.output_column is not None:
        if method in PREFERENCE_METHODS:
            return Layout("preference", source.prompt_column or "prompt", chosen=source.output_column)
        return Layout("prompt-completion", source.prompt_column or "prompt", source.output_column or "completion")
    if declared == "auto" or declared == "vlm-zip":  # noqa: PLR1714  # mypy narrows only so; a ZIP does not say what its rows look like
        return _detect(row, method)
    if declared in ("prompt-completion", "preference"):
        return _columns(row, declared)
    return Layout(declared)


def _detect(row: Row, method: str) -> Layout:
    fields = row.fields
    if "preferred_output" in fields and "input" in fields:
        return Layout("openai-dpo")
    if MESSAGES in fields:
        return Layout("sharegpt" if looks_like_sharegpt(fields[MESSAGES]) else "messages")
    if any(_holds_turns(fields, name) for name in CONVERSATIONS):
        return Layout("sharegpt")
    compares = method in PREFERENCE_METHODS
    if "instruction" in fields and ({"chosen", "rejected"} <= fields.keys() if compares else "output" in fields or method == "grpo"):
        return Layout("alpaca")
    if compares and first(fields, CHOSEN) and first(fields, REJECTED):
        return _columns(row, "preference")
    if compares and first(fields, PROMPTS) and RANKED in fields:
        return _columns(row, "preference")
    if not compares and first(fields, PROMPTS) and (first(fields, COMPLETIONS) or method == "grpo"):
        return _columns(row, "prompt-completion")
    if TEXT in fields and method in ("sft", "pretrain"):
        return Layout("text")
    raise data_error(f"{row.where}: no known format for method {method}; the columns are {names(row)}. Expected {_expected(row, method)}")


def _expected(row: Row, method: str) -> str:
    if method in PREFERENCE_METHODS:
        return (
            "messages, conversations, instruction or prompt, with chosen and rejected; prompt with answers and their ranks; "
            "or input with preferred_output and its opposite"
        )
    if method == "kto":
        return "messages, conversations, instruction and output, or prompt and completion, with label (true or false)"
    if method == "grpo":
        return "prompt or messages"
    hint = "name other columns in dataset.promptColumn and dataset.outputColumn"
    if first(row.fields, CHOSEN) and first(row.fields, REJECTED):
        hint = "rows with chosen and rejected are for methods dpo and reward"
    return f"messages, conversations, instruction and output, prompt and completion, or text; {hint}"


def _columns(row: Row, kind: Literal["prompt-completion", "preference"]) -> Layout:
    """Columns of texts: the first known names that are there."""
    return Layout(kind, first(row.fields, PROMPTS) or "prompt", first(row.fields, COMPLETIONS) or "completion")


def first(fields: Mapping[str, object], candidates: Sequence[str]) -> str | None:
    """The first of some names that a row has."""
    return next((name for name in candidates if name in fields), None)


def _holds_turns(fields: Mapping[str, object], name: str) -> bool:
    return name in fields and is_structure(fields[name]) and isinstance(structured(fields[name]), list)

"""From raw rows to training examples: which format a file has, and whether a row fits it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from finetune_api.models.spec import Dataset
from finetune_trainer.prepare.rows import Row, data_error

Format: TypeAlias = Literal["messages", "prompt-completion", "text"]
Message: TypeAlias = Mapping[str, object]
ROLES: Final = ("system", "developer", "user", "assistant", "tool")
TEXT_COLUMN: Final = "text"
MESSAGES_COLUMN: Final = "messages"


@dataclass(frozen=True)
class Text:
    """Plain text; every token is trained."""

    text: str


@dataclass(frozen=True)
class Chat:
    """A conversation; every token is trained, as TRL does for this format."""

    messages: Sequence[Message]
    tools: Sequence[object] | None = None


@dataclass(frozen=True)
class Pair:
    """Prompt and completion; only the completion is trained. Both texts, or both lists of messages."""

    prompt: str | Sequence[Message]
    completion: str | Sequence[Message]
    tools: Sequence[object] | None = None


Example: TypeAlias = Text | Chat | Pair


def columns_of(dataset: Dataset) -> tuple[str, str]:
    """Names of the prompt and the completion column."""
    return dataset.prompt_column or "prompt", dataset.output_column or "completion"


def detect_format(row: Row, dataset: Dataset) -> Format:
    """Decide how rows are read, from the spec and, for ``auto``, the first row.

    Raises :class:`TrainerError` (DataError) that names the columns present when no format fits.
    """
    if dataset.prompt_column is not None or dataset.output_column is not None:
        return "prompt-completion"
    if dataset.format != "auto":
        return dataset.format
    if MESSAGES_COLUMN in row.fields:
        return "messages"
    if all(column in row.fields for column in columns_of(dataset)):
        return "prompt-completion"
    if TEXT_COLUMN in row.fields:
        return "text"
    raise data_error(
        f"{row.where}: no known format; the columns are {_names(row)}. Expected messages, or prompt and completion, or text; "
        "name other columns in dataset.promptColumn and dataset.outputColumn"
    )


def parse(row: Row, kind: Format, dataset: Dataset) -> Example:
    """Read a row as an example.

    Raises :class:`TrainerError` (DataError) naming file, line, field and what was expected.
    """
    if kind == "text":
        return Text(_text(row, TEXT_COLUMN, "dataset.format text"))
    if kind == "messages":
        return Chat(_messages(row, MESSAGES_COLUMN, _field(row, MESSAGES_COLUMN, "dataset.format messages")), _tools(row))
    return _pair(row, dataset)


def _pair(row: Row, dataset: Dataset) -> Pair:
    prompt_column, output_column = columns_of(dataset)
    prompt = _field(row, prompt_column, "dataset.promptColumn")
    completion = _field(row, output_column, "dataset.outputColumn")
    if isinstance(prompt, list) != isinstance(completion, list):
        raise data_error(f"{row.where}: {prompt_column} and {output_column} must both be texts or both be lists of messages")
    if isinstance(prompt, list):
        return Pair(_messages(row, prompt_column, prompt), _messages(row, output_column, completion), _tools(row))
    return Pair(_text(row, prompt_column, "dataset.promptColumn"), _text(row, output_column, "dataset.outputColumn"))


def _field(row: Row, column: str, wanted_by: str) -> object:
    if column not in row.fields:
        raise data_error(f"{row.where}: there is no column {column!r} ({wanted_by}); the columns are {_names(row)}")
    return row.fields[column]


def _text(row: Row, column: str, wanted_by: str) -> str:
    value = _field(row, column, wanted_by)
    if not isinstance(value, str):
        raise data_error(f"{row.where}: {column} must be a text, found {json.dumps(value, default=str)[:80]}")
    return value


def _messages(row: Row, column: str, value: object) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise data_error(
            f'{row.where}: {column} must be a list like [{{"role": "user", "content": "..."}}], found {json.dumps(value, default=str)[:80]}'
        )
    return [_message(f"{row.where}: {column}[{index}]", message) for index, message in enumerate(value)]


def _message(where: str, message: object) -> Message:
    if not isinstance(message, Mapping):
        raise data_error(f"{where} must be an object with role and content, found {json.dumps(message, default=str)[:80]}")
    role = message.get("role")
    if role not in ROLES:
        raise data_error(f"{where}.role must be one of {', '.join(ROLES)}, found {json.dumps(role, default=str)}")
    if message.get("content") is None and not message.get("tool_calls"):
        raise data_error(f"{where}.content is missing")
    # Parquet gives every row the fields of all rows; a template must not see those that are null here.
    clean = {key: value for key, value in message.items() if value is not None}
    if "content" in clean:
        clean["content"] = _content(where, clean["content"])
    return clean


def _content(where: str, content: object) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in content):
        return "".join(part["text"] for part in content)
    raise data_error(f"{where}.content must be a text or a list of text parts, found {json.dumps(content, default=str)[:80]}")


def _tools(row: Row) -> Sequence[object] | None:
    value = row.fields.get("tools")
    if isinstance(value, str) and value:
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise data_error(f"{row.where}: tools must be a list or its JSON text ({error.msg})") from error
    if value is None or value == "":
        return None
    if not isinstance(value, list):
        raise data_error(f"{row.where}: tools must be a list or its JSON text, found {json.dumps(value, default=str)[:80]}")
    return value


def _names(row: Row) -> str:
    return ", ".join(map(str, row.fields)) or "none"

"""From canonical rows to training examples: one class per thing a method can learn from.

Examples are the contract between formats and methods: :mod:`finetune_trainer.prepare.tokens` knows nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from finetune_trainer.prepare.formats.turns import LOSS
from finetune_trainer.prepare.purpose import Purpose
from finetune_trainer.prepare.rows import Row

Message: TypeAlias = Mapping[str, object]
Turns: TypeAlias = str | Sequence[Message]
"""A plain text, or a conversation."""


@dataclass(frozen=True)
class Text:
    """Plain text; every token is trained."""

    text: str


@dataclass(frozen=True)
class Chat:
    """A conversation."""

    messages: Sequence[Message]
    tools: Sequence[object] | None = None
    trained: frozenset[int] | None = None
    """Positions of the messages that are trained; None: every token, as TRL does for this format."""


@dataclass(frozen=True)
class Pair:
    """Prompt and completion; only the completion is trained. Both texts, or both lists of messages."""

    prompt: Turns
    completion: Turns
    tools: Sequence[object] | None = None


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, for the methods dpo and reward. All three texts, or all three lists of messages."""

    prompt: Turns
    chosen: Turns
    rejected: Turns
    tools: Sequence[object] | None = None


@dataclass(frozen=True)
class Verdict:
    """An answer and whether it is a good one, for the method kto. Both texts, or both lists of messages."""

    prompt: Turns
    completion: Turns
    is_good: bool
    tools: Sequence[object] | None = None


@dataclass(frozen=True)
class Task:
    """A prompt the model answers itself, for the method grpo; reward functions get the other columns of the row."""

    prompt: Turns
    columns: Mapping[str, object]
    """All columns but the prompt, JSON values only."""


Example: TypeAlias = Text | Chat | Pair | Preference | Verdict | Task


def read_example(row: Row, purpose: Purpose, *, assistant_only_loss: bool = False) -> Example:
    """Read a canonical row; formats have seen to it that the method can use it."""
    fields = row.fields
    tools = cast("Sequence[object] | None", fields.get("tools"))

    def turns(name: str) -> Turns:
        return cast("Turns", fields[name])

    match purpose:
        case "tokens":
            return _demonstration(fields, tools, assistant_only_loss=assistant_only_loss)
        case "text":
            return _whole(_demonstration(fields, tools, assistant_only_loss=False))
        case "preference":
            return Preference(turns("prompt"), turns("chosen"), turns("rejected"), tools)
        case "verdict":
            return Verdict(turns("prompt"), turns("completion"), bool(fields["label"]), tools)
        case "task":
            return _task(fields)


def _demonstration(fields: Mapping[str, object], tools: Sequence[object] | None, *, assistant_only_loss: bool) -> Text | Chat | Pair:
    if "text" in fields:
        return Text(str(fields["text"]))
    if "messages" in fields:
        return _chat(cast("Sequence[Message]", fields["messages"]), tools, assistant_only_loss=assistant_only_loss)
    return Pair(cast("Turns", fields["prompt"]), cast("Turns", fields["completion"]), tools)


def _chat(messages: Sequence[Message], tools: Sequence[object] | None, *, assistant_only_loss: bool) -> Chat:
    """A conversation; where a message says whether it is trained, the others are told by their role."""
    plain = [{key: value for key, value in message.items() if key != LOSS} for message in messages]
    if not assistant_only_loss and all(LOSS not in message for message in messages):
        return Chat(plain, tools)
    wanted = (index for index, message in enumerate(messages) if message.get("role") == "assistant" and message.get(LOSS, True))
    return Chat(plain, tools, frozenset(wanted))


def _whole(example: Text | Chat | Pair) -> Text | Chat:
    """The same with every token trained."""
    match example:
        case Text():
            return example
        case Chat(messages, tools):
            return Chat(messages, tools)
        case Pair(str() as prompt, str() as completion):
            return Text(prompt + completion)
        case Pair(prompt, completion, tools):
            assert not isinstance(prompt, str), "canonical rows have no text beside a list"
            assert not isinstance(completion, str), "canonical rows have no text beside a list"
            return Chat([*prompt, *completion], tools)


def _task(fields: Mapping[str, object]) -> Task:
    # Through JSON, so that dates of a Parquet file look alike in every process.
    others = {name: value for name, value in fields.items() if name != "prompt"}
    return Task(cast("Turns", fields["prompt"]), cast("dict[str, object]", json.loads(json.dumps(others, default=str))))

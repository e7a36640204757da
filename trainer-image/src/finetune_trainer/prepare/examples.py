"""From canonical rows to training examples of sft and pretrain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from finetune_trainer.prepare.formats.turns import LOSS
from finetune_trainer.prepare.rows import Row

Message: TypeAlias = Mapping[str, object]


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

    prompt: str | Sequence[Message]
    completion: str | Sequence[Message]
    tools: Sequence[object] | None = None


Example: TypeAlias = Text | Chat | Pair


def read_example(row: Row, *, assistant_only_loss: bool = False) -> Example:
    """Read a canonical row of sft or pretrain."""
    fields = row.fields
    tools = cast("Sequence[object] | None", fields.get("tools"))
    if "text" in fields:
        return Text(str(fields["text"]))
    if "messages" in fields:
        return _chat(cast("Sequence[Message]", fields["messages"]), tools, assistant_only_loss=assistant_only_loss)
    prompt, completion = fields["prompt"], fields["completion"]
    return Pair(cast("str | Sequence[Message]", prompt), cast("str | Sequence[Message]", completion), tools)


def _chat(messages: Sequence[Message], tools: Sequence[object] | None, *, assistant_only_loss: bool) -> Chat:
    """A conversation; where a message says whether it is trained, the others are told by their role."""
    plain = [{key: value for key, value in message.items() if key != LOSS} for message in messages]
    if not assistant_only_loss and all(LOSS not in message for message in messages):
        return Chat(plain, tools)
    wanted = (index for index, message in enumerate(messages) if message.get("role") == "assistant" and message.get(LOSS, True))
    return Chat(plain, tools, frozenset(wanted))

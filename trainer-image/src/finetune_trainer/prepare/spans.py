"""Where the assistant's turns are in a rendered conversation, for chat templates that do not say it themselves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

Message: TypeAlias = Mapping[str, object]
Render: TypeAlias = Callable[..., str]
"""``render(messages, add_generation_prompt=False)``; raises whatever the template raises."""
MARK: Final = "\ue000"
"""A private-use character: stands for an answer while its place is looked for, and is in no template and hardly in any text."""


class Span(NamedTuple):
    """Characters ``start`` to ``end`` of the rendered text."""

    start: int
    end: int


class UnknownTurnError(Exception):
    """The template renders a conversation so that an assistant's turn cannot be told from the rest."""


def assistant_spans(render: Render, messages: Sequence[Message], trained: Collection[int]) -> tuple[str, list[Span]]:
    """Render a conversation and find the trained turns in it: the text after the generation prompt up to the next turn.

    A turn lies between the conversation before it, rendered for an answer, and the conversation up to it. Where a template renders a turn
    in the middle otherwise than at the end (it drops old reasoning, say), the turn's text is replaced by a mark to see what changes.
    Raises :class:`UnknownTurnError` when that does not show either, and what ``render`` raises.
    """
    whole = render(messages)
    return whole, [_turn(render, whole, messages, index) for index in sorted(trained)]


def _turn(render: Render, whole: str, messages: Sequence[Message], index: int) -> Span:
    opening = render(messages[:index], add_generation_prompt=True) if index else ""
    if index == 0 or opening == render(messages[:index]):
        # Nothing says where the answer begins: a template may well have no generation prompt.
        return _mark(render, whole, messages, index)
    closing = whole if index == len(messages) - 1 else render(messages[: index + 1])
    if whole.startswith(opening) and whole.startswith(closing) and len(opening) < len(closing):
        return Span(len(opening), len(closing))
    marked = _mark(render, whole, messages, index)
    return Span(len(opening), marked.end) if whole.startswith(opening) and len(opening) <= marked.start else marked


def _mark(render: Render, whole: str, messages: Sequence[Message], index: int) -> Span:
    """The turn as the part of the text that changes with it, and what the template closes it with."""
    replaced: list[Any] = [*messages[:index], {"role": "assistant", "content": MARK}, *messages[index + 1 :]]
    other, alone = render(replaced), render(replaced[: index + 1])
    if other.count(MARK) != 1 or alone.count(MARK) != 1:
        raise UnknownTurnError(f"messages[{index}]")
    before, after = other.split(MARK)
    if not whole.startswith(before) or not whole.endswith(after) or len(before) + len(after) > len(whole):
        raise UnknownTurnError(f"messages[{index}]")
    tail = alone.split(MARK)[1]
    shared = next((at for at, (a, b) in enumerate(zip(tail, after, strict=False)) if a != b), min(len(tail), len(after)))
    return Span(len(before), len(whole) - len(after) + shared)

"""Rows ready for training, one class per purpose: the columns each method's collator reads, and what the limits did to the row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

IGNORED = -100
"""Label of a token that does not count in the loss."""


class Ready(Protocol):
    """What preparing needs to know of a row ready for training."""

    @property
    def length(self) -> int:
        """Tokens of the row's longest sequence before any cut."""

    @property
    def prompt_cut(self) -> bool:
        """The prompt was longer than ``promptMaxLength``."""

    @property
    def is_cut(self) -> bool:
        """A sequence was longer than the limits allow."""

    @property
    def is_trainable(self) -> bool:
        """Something is left to learn."""

    def columns(self) -> Mapping[str, object]:
        """The row as it is written, by column."""


@dataclass(frozen=True)
class Encoded:
    """A sequence of tokens (sft, pretrain)."""

    input_ids: list[int]
    labels: list[int]
    """Equal to ``input_ids``, :data:`IGNORED` where nothing is learnt."""
    length: int
    """Tokens before ``maxSeqLength`` cut it; the limits of prompt and completion have come before."""
    prompt_cut: bool = False

    @property
    def is_cut(self) -> bool:
        """The row was longer than ``maxSeqLength``."""
        return len(self.input_ids) < self.length

    @property
    def is_trainable(self) -> bool:
        """At least one token counts; the first never does, as nothing comes before it."""
        return any(label != IGNORED for label in self.labels[1:])

    def columns(self) -> Mapping[str, object]:
        """Token ids and labels."""
        return {"input_ids": self.input_ids, "labels": self.labels}


@dataclass(frozen=True)
class EncodedAnswers:
    """A prompt and its answers, cut: two for a preference, one for a verdict."""

    prompt_ids: list[int]
    answers: Mapping[str, list[int]]
    """Column -> token ids that follow the prompt."""
    length: int
    """Tokens of the prompt and the longest answer before any cut."""
    prompt_cut: bool = False
    label: bool | None = None
    """The verdict."""

    @property
    def is_cut(self) -> bool:
        """An answer does not end where it did."""
        return not self.prompt_cut and len(self.prompt_ids) + max(map(len, self.answers.values())) < self.length

    @property
    def is_trainable(self) -> bool:
        """Every answer has tokens left."""
        return all(self.answers.values())

    def columns(self) -> Mapping[str, object]:
        """Prompt, answers, label, and how many tokens the model reads for the row."""
        tokens = sum(len(self.prompt_ids) + len(ids) for ids in self.answers.values())
        verdict = {} if self.label is None else {"label": self.label}
        return {"prompt_ids": self.prompt_ids, **self.answers, **verdict, "length": tokens}


@dataclass(frozen=True)
class EncodedTask:
    """A prompt the model answers during training; it is tokenised again there, beside what the reward functions read."""

    row: str
    """JSON object: ``prompt`` and all other columns."""
    length: int
    """Tokens of the prompt."""
    prompt_cut: bool = False
    is_cut: bool = False

    @property
    def is_trainable(self) -> bool:
        """A prompt of no tokens cannot be answered."""
        return self.length > 0

    def columns(self) -> Mapping[str, object]:
        """The row and the tokens of its prompt."""
        return {"row": self.row, "length": self.length}

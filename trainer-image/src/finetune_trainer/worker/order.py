"""Which rows each optimizer step trains, and which rank takes which of them: a function of seed, epoch and global batch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finetune_api.contract.store import Rewind
from finetune_trainer.rewinds import data_position

ORDER_STREAM = 3
"""Second word of the seed, apart from those of :mod:`finetune_trainer.prepare.merging`."""


@dataclass(frozen=True)
class Order:
    """The order of rows over a whole run. Every rank computes it for all, so no rank needs to be told."""

    rows: int
    global_batch: int
    """Rows of a step, over all ranks."""
    seed: int
    reshuffle: bool
    fills: bool = False
    """The last step of an epoch is filled up with rows of its beginning, where a method compares ranks of equal size."""
    repeats: int = 1
    """Steps that use the same rows, one after the other."""
    rewinds: tuple[Rewind, ...] = ()
    """Divergences gone back from: the rows around them are left out."""

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch; the last one may have fewer rows."""
        return max(-(-self.rows // self.global_batch), 1) * self.repeats

    def epoch_rows(self, epoch: int) -> NDArray[np.int64]:
        """Return the order of rows in an epoch: anew for each epoch with ``reshuffle``, else always that of epoch 0."""
        return np.random.default_rng([self.seed, ORDER_STREAM, epoch if self.reshuffle else 0]).permutation(self.rows)

    def place(self, step: int) -> tuple[int, int]:
        """Return (epoch, step in it), both from 0, whose rows optimizer step ``step`` (from 1) trains."""
        return divmod(data_position(step, self.rewinds) - 1, self.steps_per_epoch)

    def steps(self, first: int, count: int) -> Iterator[NDArray[np.int64]]:
        """Yield the rows of ``count`` optimizer steps from step ``first`` (from 1) on."""
        known: tuple[int, NDArray[np.int64]] | None = None
        for step in range(first, first + count):
            epoch, within = self.place(step)
            if known is None or known[0] != epoch:
                known = (epoch, self.epoch_rows(epoch))
            yield self.step_rows(known[1], within)

    def step_rows(self, epoch_rows: NDArray[np.int64], step_in_epoch: int) -> NDArray[np.int64]:
        """Return the rows of one step of an epoch (from 0)."""
        start = step_in_epoch // self.repeats * self.global_batch
        if self.fills:
            return epoch_rows[np.arange(start, start + self.global_batch) % len(epoch_rows)]
        return epoch_rows[start : start + self.global_batch]


@dataclass(frozen=True)
class StreamOrder(Order):
    """The order of a stream, which shuffles by itself: one row after the other; epochs are not known.

    ``rows`` is those of the whole run.
    """

    def place(self, step: int) -> tuple[int, int]:
        """Return (0, step from 0): rewinds only lead on."""
        return 0, data_position(step, self.rewinds) - 1

    def epoch_rows(self, epoch: int) -> NDArray[np.int64]:  # noqa: ARG002  # there is one
        """Return nothing: rows follow from the step alone."""
        return np.empty(0, dtype=np.int64)

    def step_rows(self, epoch_rows: NDArray[np.int64], step_in_epoch: int) -> NDArray[np.int64]:  # noqa: ARG002  # none are needed
        """Return the positions of one step."""
        start = step_in_epoch * self.global_batch
        return np.arange(start, start + self.global_batch, dtype=np.int64)


@dataclass(frozen=True)
class Share:
    """A rank's part of the global batch: ``accumulation`` micro-batches of at most ``batch_size`` rows per step."""

    rank: int
    world_size: int
    batch_size: int
    accumulation: int

    def micro_batches(self, rows: NDArray[np.int64]) -> Iterator[list[int]]:
        """Yield this rank's micro-batches of one step.

        Micro-batches go round the ranks. In the last step of an epoch some may be short or empty: all rows are trained exactly once per
        epoch, whatever the number of ranks, and the loss counts tokens, so a short batch weighs what its tokens weigh.
        """
        for turn in range(self.accumulation):
            start = (turn * self.world_size + self.rank) * self.batch_size
            yield rows[start : start + self.batch_size].tolist()


@dataclass(frozen=True)
class AnswerShare:
    """A rank's part of the prompts of a step, each prompt as often as it is answered; the rank gets all its answers at once."""

    rank: int
    batch_size: int
    accumulation: int
    answers: int
    """Answers per prompt."""

    def micro_batches(self, rows: NDArray[np.int64]) -> Iterator[list[int]]:
        """Yield the same rows for each micro-batch: the trainer generates answers once and keeps the parts for the others."""
        size = self.batch_size * self.accumulation
        mine = np.repeat(rows, self.answers)[self.rank * size : (self.rank + 1) * size].tolist()
        for _ in range(self.accumulation):
            yield mine


class Shares(Protocol):
    """How the rows of a step are split among ranks and micro-batches."""

    @property
    def accumulation(self) -> int:
        """Micro-batches per step."""

    def micro_batches(self, rows: NDArray[np.int64]) -> Iterator[list[int]]:
        """Yield this rank's micro-batches of one step."""


def rows_digest(rows: NDArray[np.int64]) -> str:
    """Digest of a set of rows, the same for every order; written to the metrics so that runs can be compared step by step."""
    return hashlib.sha256(np.sort(rows).astype("<i8").tobytes()).hexdigest()[:16]

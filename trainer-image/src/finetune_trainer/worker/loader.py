"""The training loader: prepared rows in the run's own order, this rank's share of them."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self, TypeAlias

import torch
from datasets import Dataset
from torch.utils.data import DataLoader, get_worker_info

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.later import NOTHING, LaterRows, StreamedRows
from finetune_trainer.worker.order import Order, Shares

Row: TypeAlias = dict[str, Any]
"""A prepared row by column (:mod:`finetune_trainer.prepare.encoded`)."""
IGNORED = -100
BLANK: Row = {"input_ids": [0, 0], "labels": [IGNORED, IGNORED], "seq_lengths": [2]}
"""Stands in a micro-batch without rows, so that all ranks run the same number of backward passes: it adds nothing to loss and gradients."""


class Rows(torch.utils.data.Dataset[Row]):
    """Prepared rows by index; no index at all gives :data:`BLANK`."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._columns = dataset.column_names

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Row:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        if not indices:
            return [{name: BLANK[name] for name in self._columns}]
        columns: dict[str, list[Any]] = self._dataset[list(indices)]
        return [{name: columns[name][at] for name in self._columns} for at in range(len(indices))]


class TaskRows(Rows):
    """Prepared tasks by index: the prompt and the columns for reward functions, as they were written."""

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        return [json.loads(row["row"]) for row in super().__getitems__(indices)] if indices else []


class LoaderProcessError(Exception):
    """A :class:`TrainerError` on its way out of a loader process: torch makes it anew of one text, a traceback that ends with it."""

    @classmethod
    def of(cls, error: TrainerError) -> Self:
        """Pack an error."""
        return cls(json.dumps({"class": error.failure_class, "message": error.message}))

    @property
    def original(self) -> TrainerError:
        """The error that was packed."""
        line = str(self).rstrip().rpartition("\n")[2]
        packed = json.loads(line[line.index("{") :])
        return TrainerError(FailureClass(packed["class"]), packed["message"])


class TokenisedLater(Rows):
    """Rows whose tokens are made here, by index: of a table, or of a stream."""

    def __init__(self, source: LaterRows | StreamedRows, count: int, longest: int) -> None:
        """``longest`` is the length of a row in tokens that none exceeds."""
        self._source, self._count = source, count
        self.longest = longest

    def __len__(self) -> int:
        return self._count

    def __getitems__(self, indices: Sequence[int]) -> list[Row]:
        try:
            rows = self._source.encode(indices) if indices else [NOTHING]
        except TrainerError as error:
            if get_worker_info() is None:
                raise
            raise LoaderProcessError.of(error) from error
        return [{name: list(values) for name, values in row.items()} for row in rows]

    def longest_rows(self, count: int) -> list[Row]:
        """Return the largest rows there could be, of no meaning."""
        return [{"input_ids": [0] * self.longest, "labels": [0] * self.longest} for _ in range(count)]


class EpochBatches:
    """Batch sampler of one rank: ``steps_per_epoch x accumulation`` micro-batches per epoch. The Trainer calls :meth:`set_epoch`."""

    def __init__(self, order: Order, share: Shares) -> None:
        self._order, self._share = order, share
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch the next iteration goes through."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._order.steps_per_epoch * self._share.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        count = self._order.steps_per_epoch
        for rows in self._order.steps(self._epoch * count + 1, count):
            yield from self._share.micro_batches(rows)


class TrainLoader(DataLoader[Row]):
    """A loader with epochs: the Trainer tells it which one begins."""

    def set_epoch(self, epoch: int) -> None:
        """Pass the epoch on to the batch sampler."""
        batches = self.batch_sampler
        assert isinstance(batches, EpochBatches)
        batches.set_epoch(epoch)


def make_loader(rows: Rows, batches: EpochBatches, collate: Callable[[list[Row]], Any], *, workers: int, pin_memory: bool) -> TrainLoader:
    """Build the loader. It never draws from the global random state, which belongs to dropout: a resumed run must find it untouched."""
    return TrainLoader(
        rows,
        batch_sampler=batches,
        collate_fn=collate,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        worker_init_fn=_own_signals if workers > 0 else None,
        generator=torch.Generator(),
    )


def _own_signals(_worker: int) -> None:
    """Leave Ctrl-C to the parent process, which ends its loaders itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""The loader delivers the rows the order says, with and without worker processes, from the start and from the middle."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.later import LaterRows
from finetune_trainer.worker.failures import as_trainer_error
from finetune_trainer.worker.loader import BLANK, EpochBatches, LoaderProcessError, Row, Rows, TokenisedLater, make_loader
from finetune_trainer.worker.order import Order, Share

ROWS = 21
DATA = Dataset.from_dict({"input_ids": [[row, row] for row in range(ROWS)], "labels": [[row, row] for row in range(ROWS)]})


def ids(batch: list[Row]) -> list[int]:
    """Row numbers of a batch; none for a blank."""
    return [row["input_ids"][0] for row in batch if row["labels"] != BLANK["labels"]]


def loader_of(rank: int, ranks: int, workers: int = 0) -> Any:
    """A loader over 21 rows in global batches of 8."""
    batches = EpochBatches(Order(ROWS, 8, 42, reshuffle=True), Share(rank, ranks, 2, 4 // ranks))
    return make_loader(Rows(DATA), batches, lambda rows: rows, workers=workers, pin_memory=False)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("epoch", [0, 3])
def test_rows_arrive_as_planned(workers: int, epoch: int) -> None:
    """One rank: every micro-batch of every step, in order; the last step has five of eight rows, one micro-batch is blank."""
    loader = loader_of(0, 1, workers)
    loader.set_epoch(epoch)
    order = Order(ROWS, 8, 42, reshuffle=True)
    delivered = [ids(batch) for batch in loader]
    assert len(delivered) == len(loader) == 12
    rows = order.epoch_rows(epoch)
    for step in range(3):
        assert [row for batch in delivered[4 * step : 4 * step + 4] for row in batch] == order.step_rows(rows, step).tolist()
    assert delivered[-1] == []


def test_two_ranks_share_each_step() -> None:
    """Together they deliver what one would."""
    one, first, second = ([ids(batch) for batch in loader_of(rank, ranks)] for rank, ranks in ((0, 1), (0, 2), (1, 2)))
    for step in range(3):
        together = [batch for pair in zip(first[2 * step : 2 * step + 2], second[2 * step : 2 * step + 2], strict=True) for batch in pair]
        assert together == one[4 * step : 4 * step + 4]


def test_the_global_random_state_is_left_alone() -> None:
    """It belongs to dropout: a resumed run must find it as it was."""
    state = torch.get_rng_state(), random.getstate(), str(np.random.get_state())  # noqa: NPY002  # the state is the point
    for workers in (0, 1):
        list(loader_of(0, 1, workers))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert random.getstate() == state[1]
    assert str(np.random.get_state()) == state[2]  # noqa: NPY002  # the state is the point


def test_blank_rows_have_the_columns_of_the_data() -> None:
    """Packed data has one more."""
    assert Rows(DATA).__getitems__([]) == [{"input_ids": [0, 0], "labels": [-100, -100]}]
    packed = Dataset.from_dict({"input_ids": [[1]], "labels": [[1]], "seq_lengths": [[1]]})
    assert Rows(packed).__getitems__([]) == [BLANK]


class BrokenSource(LaterRows):
    """Rows of which none can be tokenised."""

    def __init__(self) -> None:
        """Read nothing."""

    def encode(self, indices: Sequence[int]) -> list[Mapping[str, Any]]:
        raise TrainerError(FailureClass.DATA, 'train.jsonl, line 3: field "messages"\nis {empty}')


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_wrong_with_a_row_is_said_by_a_loader_process_too(workers: int) -> None:
    """A DataError ends the job (42) wherever it is found; torch brings only a text back from the processes it loads with."""
    batches = EpochBatches(Order(ROWS, 8, 42, reshuffle=True), Share(0, 1, 2, 4))
    loader = make_loader(TokenisedLater(BrokenSource(), len(DATA), 8), batches, lambda rows: rows, workers=workers, pin_memory=False)
    with pytest.raises((TrainerError, LoaderProcessError)) as caught:
        next(iter(loader))
    found = as_trainer_error(caught.value, None)
    assert (found.failure_class, found.message) == (FailureClass.DATA, 'train.jsonl, line 3: field "messages"\nis {empty}')

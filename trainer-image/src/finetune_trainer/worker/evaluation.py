"""Evaluation over all ranks, left in the middle when the group stops.

Methods that learn tokens have a mean loss per token over all rows, the same for any number of ranks and any batch size. All others compare
rows or answers within a batch and over ranks: theirs is the mean over batches of equal size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from finetune_trainer.worker.loader import Rows
from finetune_trainer.worker.orders import stop_trigger

if TYPE_CHECKING:
    from finetune_trainer.worker.session import Session


class Evaluation(NamedTuple):
    """Result of an evaluation."""

    metrics: dict[str, float]
    seconds: float


def evaluate(session: Session, rows: Rows, batch_size: int, score: Callable[[Sequence[Any]], torch.Tensor]) -> Evaluation | None:
    """Evaluate all rows; None when the group agreed to stop in the middle, which it is asked after each batch.

    Where weights are split over the ranks, one that has no rows left runs the others' last passes on a blank
    row. ``score`` returns the sums of :class:`~finetune_trainer.worker.scores.Scores` for a list of rows, on the CPU. Draws no random
    numbers.
    """
    started = time.monotonic()
    world, rank = session.rank.world_size, session.rank.rank
    batches = [range(start, min(start + batch_size, len(rows))) for start in range(0, len(rows), batch_size)]
    sums = torch.zeros(4, dtype=torch.float64)
    session.heartbeat.beat("Evaluating", 0)
    for turn in range(-(-len(batches) // world)):
        if stop_trigger(session.group.agree(session.orders.stop_bits)) is not None:
            return None
        mine = turn * world + rank
        if mine < len(batches):
            sums += score(rows.__getitems__(list(batches[mine])))
        elif session.sharing.shards_weights:
            score(rows.__getitems__([]))
        session.heartbeat.beat("Evaluating", turn + 1)
    loss, correct, entropy, tokens = session.group.gather(sums).sum(dim=0).tolist()
    tokens = max(tokens, 1)
    seconds = time.monotonic() - started
    metrics = {
        "eval_loss": loss / tokens,
        "eval_token_accuracy": correct / tokens,
        "eval_entropy": entropy / tokens,
        "eval_samples_per_second": len(rows) / max(seconds, 1e-9),
    }
    return Evaluation(metrics, seconds)


def evaluate_batches(
    session: Session,
    rows: Rows,
    rows_per_batch: int,
    loss: Callable[[Sequence[Any]], float],
    metrics: Callable[[], dict[str, float]],
) -> Evaluation | None:
    """Evaluate all rows in batches of one size; None when the group agreed to stop in the middle.

    The last turn is filled up with rows of the beginning, so that all ranks take part in every collective of ``loss``, which returns this
    rank's mean loss of a batch. ``metrics`` returns the means of the trainer's own numbers, alike on all ranks.
    """
    started = time.monotonic()
    world, rank = session.rank.world_size, session.rank.rank
    turns = -(-len(rows) // (rows_per_batch * world))
    total = torch.zeros(1, dtype=torch.float64)
    session.heartbeat.beat("Evaluating", 0)
    for turn in range(turns):
        if stop_trigger(session.group.agree(session.orders.stop_bits)) is not None:
            metrics()
            return None
        first = (turn * world + rank) * rows_per_batch
        total += loss(rows.__getitems__([(first + at) % len(rows) for at in range(rows_per_batch)]))
        session.heartbeat.beat("Evaluating", turn + 1)
    seconds = time.monotonic() - started
    known = {f"eval_{name}": value for name, value in metrics().items()}
    known["eval_loss"] = float(session.group.gather(total).mean()) / turns
    known["eval_samples_per_second"] = len(rows) / max(seconds, 1e-9)
    return Evaluation(known, seconds)

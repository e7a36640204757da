"""Which rows are trained and how often, and which five are shown: sources by weight, evaluation split off, all decided by the seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from finetune_api.length import evaluation_count, training_count

Rows = NDArray[np.int64]
SPLIT_STREAM, SAMPLE_STREAM, LIMIT_STREAM, WEIGHT_STREAM, SHARE_STREAM = 1, 2, 4, 5, 7
"""Second word of the seeds, so that nothing that is drawn depends on another; 3 is the order of training, 6 that of streams."""


def limited_rows(rows: int, limit: int, seed: int) -> Rows:
    """Return the sorted indices of at most ``limit`` rows of several sources, each with the same chance; 0 or less means all."""
    if limit <= 0 or rows <= limit:
        return np.arange(rows, dtype=np.int64)
    return np.sort(np.random.default_rng([seed, LIMIT_STREAM]).permutation(rows)[:limit]).astype(np.int64)


def evaluation_rows(rows: int, ratio: float, seed: int) -> Rows:
    """Return the sorted indices of the evaluation rows: ``round(rows x ratio)``, at least 1 and at most ``rows - 1``; none for ratio 0."""
    count = evaluation_count(rows, ratio)
    if count == 0:
        return np.empty(0, dtype=np.int64)
    return np.sort(np.random.default_rng([seed, SPLIT_STREAM]).permutation(rows)[:count])


def training_rows(rows: Rows, share: float | None, total: int, seed: int) -> Rows:
    """Return the sorted ones of ``rows`` that are trained: ``round(total x share)``, at least 1; all where no share is asked for."""
    if share is None:
        return rows
    count = training_count(total, share, len(rows))
    return np.sort(np.random.default_rng([seed, SHARE_STREAM]).permutation(rows)[:count])


def weighted_rows(rows: Rows, sources: Rows, weights: Sequence[float], seed: int) -> Rows:
    """Repeat rows as their source's weight says: whole turns of all, and of the remaining fraction a share chosen by seed.

    ``sources`` holds the index of the source of each row. At least one row of each source that has any stays.
    """
    taken: list[Rows] = []
    for source, weight in enumerate(weights):
        mine = rows[sources[rows] == source]
        turns, rest = int(weight), round((weight - int(weight)) * len(mine))
        if turns == 0 and len(mine):
            rest = max(rest, 1)
        some = np.random.default_rng([seed, WEIGHT_STREAM, source]).permutation(len(mine))[:rest]
        taken += [mine] * turns + [mine[some]]
    return np.sort(np.concatenate(taken))


def sample_rows(train_rows: Sequence[int] | Rows, count: int, seed: int) -> list[int]:
    """Choose up to ``count`` rows by seed, in ascending order."""
    chosen = np.random.default_rng([seed, SAMPLE_STREAM]).permutation(len(train_rows))[:count]
    return sorted(int(train_rows[index]) for index in chosen)

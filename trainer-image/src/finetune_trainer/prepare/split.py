"""Which rows evaluate and which five are shown: decided by the seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

SPLIT_STREAM, SAMPLE_STREAM = 1, 2
"""Second word of the seeds, so that split and samples are drawn independently."""


def evaluation_rows(rows: int, ratio: float, seed: int) -> NDArray[np.int64]:
    """Return the sorted indices of the evaluation rows: ``round(rows x ratio)``, at least 1 and at most ``rows - 1``; none for ratio 0."""
    if ratio == 0 or rows < 2:
        return np.empty(0, dtype=np.int64)
    count = min(max(int(rows * ratio + 0.5), 1), rows - 1)
    return np.sort(np.random.default_rng([seed, SPLIT_STREAM]).permutation(rows)[:count])


def sample_rows(train_rows: Sequence[int] | NDArray[np.int64], count: int, seed: int) -> list[int]:
    """Choose up to ``count`` distinct rows by seed, in ascending order."""
    chosen = np.random.default_rng([seed, SAMPLE_STREAM]).permutation(len(train_rows))[:count]
    return sorted(int(train_rows[index]) for index in chosen)

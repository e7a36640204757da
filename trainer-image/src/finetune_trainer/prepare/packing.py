"""Packing: which short rows share one sequence."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing: put each row, longest first, into the fullest sequence it still fits in.

    Returns the row indices of each sequence. Equal lengths keep their order, so equal input gives equal output. Every length must be
    within 1..capacity.
    """
    bins: list[list[int]] = []
    by_space: dict[int, deque[int]] = {}
    spaces: list[int] = []
    """Sorted free spaces for which ``by_space`` has a bin."""
    for row in sorted(range(len(lengths)), key=lambda index: (-lengths[index], index)):
        length = lengths[row]
        if not 0 < length <= capacity:
            raise ValueError(f"row {row} has {length} tokens, outside 1..{capacity}")
        at = bisect_left(spaces, length)
        if at == len(spaces):
            bins.append([])
            target, space = len(bins) - 1, capacity
        else:
            space = spaces[at]
            target = by_space[space].popleft()
            if not by_space[space]:
                del by_space[space], spaces[at]
        bins[target].append(row)
        if left := space - length:
            if left not in by_space:
                by_space[left] = deque()
                insort(spaces, left)
            by_space[left].append(target)
    return bins

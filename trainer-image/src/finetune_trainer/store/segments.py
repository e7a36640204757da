"""Reads a large object in parallel pieces, yet in order: the network is used fully while the digest is computed on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

SEGMENT_BYTES = 16 * 1024 * 1024
SEGMENTS_AHEAD = 6
"""Memory used at most by one download: this many segments and the one being written."""


def read_in_order(size: int, read: Callable[[int, int], bytes]) -> Iterator[bytes]:
    """Yield an object's bytes from start to end; ``read(start, length)`` may run in several threads at once."""
    if size <= SEGMENT_BYTES:
        if size:
            yield read(0, size)
        return
    with ThreadPoolExecutor(SEGMENTS_AHEAD, thread_name_prefix="download") as pool:
        waiting: deque[Future[bytes]] = deque()
        for start in range(0, size, SEGMENT_BYTES):
            waiting.append(pool.submit(read, start, min(SEGMENT_BYTES, size - start)))
            if len(waiting) == SEGMENTS_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

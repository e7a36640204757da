"""The work queue: each key at most once in line and never in two hands, retries with back-off, wake-up times, a spread resync."""

from __future__ import annotations

import asyncio
import heapq
import logging
import random
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
log = logging.getLogger(__name__)

FIRST_BACKOFF_SECONDS = 1.0
MAX_BACKOFF_SECONDS = 300.0


class RetryLater(Exception):  # noqa: N818 - a request, not a failure
    """Raised by work that wants to be done again after a time of its own choice; not counted as a failure."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds:g} s")
        self.seconds = seconds


class WorkQueue(Generic[K]):
    """Runs ``work(key)``, which returns the seconds after which it wants to be called again (None: only when something happens)."""

    def __init__(
        self,
        work: Callable[[K], Awaitable[float | None]],
        *,
        clock: Callable[[], float],
        rng: random.Random,
        resync_seconds: float,
        on_result: Callable[[K, str, float], None] = lambda _key, _result, _seconds: None,
    ) -> None:
        self._work = work
        self._clock = clock
        self._rng = rng
        self._resync_seconds = resync_seconds
        self._on_result = on_result
        self._due: dict[K, float] = {}
        """When a key is wanted next: the earliest wish."""
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._busy: dict[K, float] = {}
        """Keys in work and since when."""
        self._again: dict[K, float] = {}
        """Keys that became due while in work."""
        self._failures: dict[K, int] = {}
        self._changed = asyncio.Event()

    # --- asking for work ---

    def add(self, key: K, delay: float = 0.0) -> None:
        """Ask for a key to be worked on, ``delay`` seconds from now or earlier."""
        when = self._clock() + max(0.0, delay)
        if key in self._busy:
            self._again[key] = min(when, self._again.get(key, when))
        else:
            self._schedule(key, when)

    def spread(self, keys: Iterable[K], over_seconds: float) -> None:
        """Ask for many keys, evenly over a time."""
        for key in keys:
            self.add(key, self._rng.uniform(0.0, over_seconds))

    def forget(self, key: K) -> None:
        """Drop what is asked for a key; work on it goes on."""
        self._due.pop(key, None)
        self._again.pop(key, None)
        self._failures.pop(key, None)

    def clear(self) -> None:
        """Drop everything that is asked for."""
        self._due.clear()
        self._again.clear()
        self._failures.clear()
        self._heap.clear()

    # --- what is going on ---

    @property
    def depth(self) -> int:
        """Keys that are due and not yet in work."""
        now = self._clock()
        return sum(1 for when in self._due.values() if when <= now)

    @property
    def oldest_seconds(self) -> float:
        """How long the longest waiting due key has waited; 0 when nothing waits. Costs nothing, whatever the depth."""
        due = self.next_due
        return 0.0 if due is None else max(0.0, self._clock() - due)

    @property
    def longest_work_seconds(self) -> float:
        """How long the longest running work has taken so far."""
        now = self._clock()
        return max((now - since for since in self._busy.values()), default=0.0)

    @property
    def next_due(self) -> float | None:
        """When the next key is due, by the clock given."""
        self._drop_stale()
        return self._heap[0][0] if self._heap else None

    # --- working ---

    async def run(self, workers: int) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._worker(), name=f"worker-{number}")

    async def _worker(self) -> None:
        while True:
            key = self.take()
            if key is not None:
                await self.do(key)
                continue
            due = self.next_due
            self._changed.clear()
            try:
                await asyncio.wait_for(self._changed.wait(), None if due is None else max(0.0, due - self._clock()))
            except TimeoutError:
                continue

    def take(self) -> K | None:
        """The next due key, now in work; None when nothing is due."""
        self._drop_stale()
        if not self._heap or self._heap[0][0] > self._clock():
            return None
        _, _, key = heapq.heappop(self._heap)
        del self._due[key]
        self._busy[key] = self._clock()
        return key

    async def do(self, key: K) -> None:
        """Work on a key taken with :meth:`take`; errors are logged and tried again with back-off."""
        started = self._busy[key]
        delay: float | None = None
        try:
            wish = await self._work(key)
            self._failures.pop(key, None)
            delay = self._next_look(wish)
            result = "ok"
        except RetryLater as request:
            delay, result = request.seconds, "again"
        except Exception:
            delay, result = self._backoff(key), "error"
            log.exception("work failed", extra={"job": str(key), "retry_seconds": round(delay, 1)})
        finally:
            del self._busy[key]
            again = self._again.pop(key, None)
        if again is not None and result != "error":
            self._schedule(key, again)
        if delay is not None:
            self._schedule(key, self._clock() + delay)
        self._on_result(key, result, self._clock() - started)

    def _next_look(self, wish: float | None) -> float | None:
        """The wish, at most a resync period away; negative wishes mean never."""
        if wish is not None and wish < 0:
            return None
        resync = self._resync_seconds * self._rng.uniform(0.8, 1.2)
        return resync if wish is None else min(wish, resync)

    def _backoff(self, key: K) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 16)) * self._rng.uniform(0.5, 1.0)

    def _schedule(self, key: K, when: float) -> None:
        known = self._due.get(key)
        if known is not None and known <= when:
            return
        self._due[key] = when
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, key))
        self._changed.set()

    def _drop_stale(self) -> None:
        """Heap entries that an earlier wish replaced or :meth:`forget` dropped."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)

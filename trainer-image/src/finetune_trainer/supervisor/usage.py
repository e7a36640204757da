"""The ledger of seconds of pod 0: what earlier attempts used, what rank 0 books, and the time in which no rank runs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from finetune_api.contract.progress import TrainerPhase
from finetune_api.contract.store import UsageSeconds

USE_OF_PHASE: dict[TrainerPhase, str] = {
    "Starting": "starting",
    "Preparing": "starting",
    "Loading": "starting",
    "Evaluating": "evaluating",
    "Saving": "checkpointing",
    "Uploading": "checkpointing",
    "Holding": "checkpointing",
    "Exporting": "checkpointing",
    "Finished": "checkpointing",
}
"""Use of a stretch of time that rank 0 no longer booked itself; in all other phases it trained."""


class UsageLedger:
    """Seconds by use up to now, gap-free and never falling. Thread-safe; ``clock`` is monotonic, in seconds."""

    def __init__(self, started: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Count from ``started`` on; until rank 0 books something, all of it is ``starting``."""
        self._clock = clock
        self._mark = started
        self._seconds = UsageSeconds().model_dump()
        self._running: str | None = "starting"
        self._lock = threading.Lock()

    def carry(self, before: UsageSeconds) -> None:
        """Add what earlier attempts used; once, before any rank books."""
        with self._lock:
            for use, seconds in before.model_dump().items():
                self._seconds[use] += seconds

    def settle(self, usage: UsageSeconds, until: float) -> None:
        """Take over rank 0's sums, which reach to ``until`` and contain what was carried."""
        with self._lock:
            if until >= self._mark:
                self._seconds, self._mark, self._running = usage.model_dump(), until, None

    def ranks_ended(self, phase: TrainerPhase) -> None:
        """Book what rank 0 did last; from here on the pod only keeps what was trained."""
        with self._lock:
            now = self._clock()
            self._seconds[self._running or USE_OF_PHASE.get(phase, "productive")] += max(0.0, now - self._mark)
            self._mark, self._running = now, "checkpointing"

    def total(self) -> UsageSeconds:
        """Seconds by use, all attempts."""
        with self._lock:
            seconds = dict(self._seconds)
            if self._running is not None:
                seconds[self._running] += max(0.0, self._clock() - self._mark)
        return UsageSeconds.model_validate(seconds)

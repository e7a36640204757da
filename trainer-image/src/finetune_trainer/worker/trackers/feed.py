"""Between training and a tracker: a bounded queue and a thread that copes with whatever the tracker does."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Final

from finetune_trainer.worker.trackers.target import Tracker

log = logging.getLogger(__name__)

BACKLOG: Final = 10_000
"""Points kept while a tracker is away; the oldest are lost beyond it."""
RETRY_SECONDS: Final = 30.0


class Feed:
    """Hands points to one tracker, in order; :meth:`put` never blocks and never raises."""

    def __init__(
        self, name: str, connect: Callable[[], Tracker], warn: Callable[[str], None], retry_seconds: float = RETRY_SECONDS
    ) -> None:
        self._name, self._connect, self._warn = name, connect, warn
        self._retry_seconds = retry_seconds
        self._backlog: deque[tuple[int, dict[str, float]]] = deque(maxlen=BACKLOG)
        self._changed = threading.Condition()
        self._closing = False
        self._tracker: Tracker | None = None
        self._thread = threading.Thread(target=self._run, name=f"tracker-{name}", daemon=True)
        self._thread.start()

    def put(self, step: int, values: Mapping[str, float]) -> None:
        """Queue the values of a step."""
        with self._changed:
            self._backlog.append((step, dict(values)))
            self._changed.notify_all()

    def finish(self) -> None:
        """Say that no more points come. A tracker that is away now is not tried again."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()

    def join(self, seconds: float) -> None:
        """Wait until the tracker has taken everything, but no longer than this."""
        self._thread.join(max(seconds, 0))
        if self._thread.is_alive():
            self._warn(f"{self._name} did not take the last {len(self._backlog)} points in time")

    def _run(self) -> None:
        while self._wait():
            try:
                self._send()
            except Exception as error:  # noqa: BLE001  # a tracker's library may raise anything, and training must not notice
                self._failed(error)
        if self._tracker is not None:
            try:
                self._tracker.close()
            except Exception as error:  # noqa: BLE001  # same
                self._failed(error)

    def _wait(self) -> bool:
        """Wait for points; False when there is nothing left to do."""
        with self._changed:
            self._changed.wait_for(lambda: self._backlog or self._closing)
            return bool(self._backlog)

    def _send(self) -> None:
        if self._tracker is None:
            self._tracker = self._connect()
        while self._backlog:
            step, values = self._backlog[0]
            self._tracker.log(step, values)
            self._backlog.popleft()
        self._warn("")

    def _failed(self, error: Exception) -> None:
        self._tracker = None
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        self._warn(f"{self._name} cannot be reached, training goes on without it: {reason}")
        log.warning("tracker %s: %s", self._name, reason)
        with self._changed:
            if self._changed.wait_for(lambda: self._closing, self._retry_seconds):
                self._backlog.clear()

"""Where the seconds go: every moment of the rank group belongs to exactly one use."""

from __future__ import annotations

from collections.abc import Callable

from finetune_api.contract.store import UsageSeconds


class Stopwatch:
    """Splits elapsed time among uses; ``clock`` is monotonic, in seconds."""

    def __init__(self, clock: Callable[[], float], started: float, before: UsageSeconds) -> None:
        """Count from ``started`` on, on top of ``before`` (all earlier attempts)."""
        self._clock = clock
        self._mark = started
        self._seconds = before.model_dump()

    def lap(self, use: str) -> float:
        """Book the time since the last lap to ``use`` (a field of :class:`UsageSeconds`) and return it in seconds."""
        now = self._clock()
        elapsed, self._mark = now - self._mark, now
        self._seconds[use] += elapsed
        return elapsed

    @property
    def usage(self) -> UsageSeconds:
        """Seconds by use, summed over attempts."""
        return UsageSeconds.model_validate(self._seconds)

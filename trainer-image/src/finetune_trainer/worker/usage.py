"""Where the seconds go: every moment of the rank group belongs to exactly one use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from finetune_api.contract.store import UsageSeconds

REPORT_SECONDS: Final = 1.0


class Stopwatch:
    """Splits elapsed time among uses; ``clock`` is monotonic, in seconds."""

    def __init__(
        self,
        clock: Callable[[], float],
        started: float,
        before: UsageSeconds,
        report: Callable[[UsageSeconds, float], None] = lambda _usage, _until: None,
    ) -> None:
        """Count from ``started`` on, on top of ``before`` (all earlier attempts).

        ``report`` is told the sums and the moment they reach to: when the use changes, else at most once a second.
        """
        self._clock = clock
        self._mark = started
        self._seconds = before.model_dump()
        self._report = report
        self._reported: tuple[str, float] | None = None

    def lap(self, use: str) -> float:
        """Book the time since the last lap to ``use`` (a field of :class:`UsageSeconds`) and return it in seconds."""
        now = self._clock()
        elapsed, self._mark = now - self._mark, now
        self._seconds[use] += elapsed
        if self._reported is None or self._reported[0] != use or now - self._reported[1] >= REPORT_SECONDS:
            self._reported = (use, now)
            self._report(self.usage, now)
        return elapsed

    @property
    def usage(self) -> UsageSeconds:
        """Seconds by use, summed over attempts."""
        return UsageSeconds.model_validate(self._seconds)

"""A token bucket: how much status may be written in a second, whatever the number of jobs."""

from __future__ import annotations

from collections.abc import Callable


class TokenBucket:
    """``rate`` tokens a second, at most ``burst`` saved up. What cannot wait goes into debt, which later writes pay back."""

    def __init__(self, rate: float, *, clock: Callable[[], float], burst: float | None = None) -> None:
        self._rate = rate
        self._burst = burst if burst is not None else max(1.0, rate)
        self._clock = clock
        self._tokens = self._burst
        self._at = clock()

    def wait_seconds(self) -> float:
        """How long until a token is there; 0 when one is."""
        self._refill()
        return max(0.0, (1.0 - self._tokens) / self._rate)

    def take(self) -> bool:
        """Take a token if there is one."""
        self._refill()
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def force(self) -> None:
        """Take a token even if there is none; the debt is at most one burst."""
        self._refill()
        self._tokens = max(-self._burst, self._tokens - 1.0)

    def _refill(self) -> None:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
        self._at = now

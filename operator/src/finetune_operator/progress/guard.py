"""Bad tokens cost the API server a request each: an address that sends many is not listened to for a while."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

MAX_FAILURES = 30
WINDOW_SECONDS = 60.0
MAX_SOURCES = 4096


class FailureGuard:
    """Counts refused posts by address in a window."""

    def __init__(self, *, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def failed(self, source: str) -> None:
        """Note a refusal."""
        since, count = self._window(source)
        self._failures[source] = (since, count + 1)
        self._failures.move_to_end(source)
        while len(self._failures) > MAX_SOURCES:
            self._failures.popitem(last=False)

    def is_blocked(self, source: str) -> bool:
        """Whether too many were refused lately."""
        return self._window(source)[1] >= MAX_FAILURES

    def _window(self, source: str) -> tuple[float, int]:
        now = self._clock()
        since, count = self._failures.get(source, (now, 0))
        return (since, count) if now - since < WINDOW_SECONDS else (now, 0)

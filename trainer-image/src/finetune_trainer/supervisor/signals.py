"""SIGTERM and SIGINT, caught before anything else is imported: as PID 1, where an image has no init, a process has no default action."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

STOPPED = 75
"""``EXIT_STOPPED`` of the contract, which cannot be imported yet when this is needed."""


def leave_at_once() -> None:
    """Exit 75 without any clean-up: nothing has been begun that would need it."""
    os._exit(STOPPED)


class StopSignals:
    """Routes the stop signals to one action, which may be replaced as the process gets further."""

    def __init__(self) -> None:
        self.action: Callable[[], None] = leave_at_once

    def install(self) -> None:
        """Start to catch the signals. Main thread only."""
        signal.signal(signal.SIGTERM, self._handle)
        signal.signal(signal.SIGINT, self._handle)

    def _handle(self, _number: int, _frame: object) -> None:
        self.action()

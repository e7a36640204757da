"""Waiting for the supervisor to have a finished save."""

from __future__ import annotations

import threading


class Staging:
    """The step the supervisor is yet to put aside: the training thread says so and waits, the link's thread tells of its arrival."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._expected: int | None = None

    def expect(self, step: int) -> None:
        """From now on :meth:`wait` waits for ``step``; called before the supervisor is told of it."""
        with self._changed:
            self._expected = step

    def arrived(self, step: int) -> None:
        """The supervisor has hard-linked the checkpoint of ``step`` aside."""
        with self._changed:
            if self._expected == step:
                self._expected = None
                self._changed.notify_all()

    def wait(self) -> None:
        """Block until the expected step, if any, is staged. A supervisor that dies ends this process by the link."""
        with self._changed:
            self._changed.wait_for(lambda: self._expected is None)

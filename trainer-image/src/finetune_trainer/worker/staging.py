"""Waiting for the supervisor to have a finished save."""

from __future__ import annotations

import threading


class Staging:
    """The step the supervisor has last staged; the link's thread sets it, the training thread waits for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._step: int | None = None

    def arrived(self, step: int) -> None:
        """The supervisor has hard-linked the checkpoint of ``step`` aside."""
        with self._changed:
            self._step = step
            self._changed.notify_all()

    def clear(self, step: int) -> None:
        """Forget an earlier arrival of the same step."""
        with self._changed:
            if self._step == step:
                self._step = None

    def wait(self, step: int) -> None:
        """Block until ``step`` is staged. A supervisor that dies ends this process by the link."""
        with self._changed:
            self._changed.wait_for(lambda: self._step == step)

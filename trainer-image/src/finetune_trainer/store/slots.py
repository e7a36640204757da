"""Which saves are uploaded when uploads are slower than saves: one uploading, one waiting."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from finetune_trainer.store.checkpoints import Save


def plan_waiting(waiting: Sequence[Save], new: Save) -> tuple[list[Save], list[Save]]:
    """(kept, replaced) when a save arrives: the newer replaces the waiting one, never a protected one."""
    replaced = [save for save in waiting if not save.is_protected]
    return [save for save in waiting if save.is_protected] + [new], replaced


class UploadQueue:
    """Hands saves to the uploading thread in order; thread-safe."""

    def __init__(self, *, may_replace: bool, on_replaced: Callable[[Save], None]) -> None:
        """``may_replace`` is for pod 0: it alone decides what is skipped, the others follow (:meth:`drop`), else parts would never meet."""
        self._may_replace = may_replace
        self._on_replaced = on_replaced
        self._waiting: list[Save] = []
        self._current: Save | None = None
        self._closed = False
        self._changed = threading.Condition()

    def offer(self, save: Save) -> None:
        """Queue a save; may replace the one that waits."""
        with self._changed:
            if self._may_replace:
                self._waiting, replaced = plan_waiting(self._waiting, save)
            else:
                self._waiting, replaced = [*self._waiting, save], []
            self._changed.notify_all()
        for old in replaced:
            self._on_replaced(old)

    def drop(self, steps: Collection[int]) -> None:
        """Forget waiting saves of steps that pod 0 skipped."""
        with self._changed:
            dropped = [save for save in self._waiting if save.step in steps]
            self._waiting = [save for save in self._waiting if save.step not in steps]
        for old in dropped:
            self._on_replaced(old)

    def take(self) -> Save | None:
        """Next save; waits for one. None once the queue is closed and empty."""
        with self._changed:
            self._current = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: bool(self._waiting) or self._closed)
            if self._waiting:
                self._current = self._waiting.pop(0)
            return self._current

    def close(self) -> None:
        """No more saves come."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def is_idle(self) -> bool:
        """Nothing uploads and nothing waits."""
        with self._changed:
            return self._current is None and not self._waiting

    @property
    def pending_steps(self) -> list[int]:
        """Steps uploading or waiting."""
        with self._changed:
            return ([self._current.step] if self._current else []) + [save.step for save in self._waiting]

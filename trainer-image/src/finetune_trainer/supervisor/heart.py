"""Pod 0 says in the store, every few seconds, how far its attempt got and what it used."""

from __future__ import annotations

import logging
import threading
from typing import Any

from finetune_trainer.errors import TrainerError
from finetune_trainer.store.base import Store
from finetune_trainer.store.heartbeat import Heartbeat, write_heartbeat
from finetune_trainer.supervisor.board import Board

logger = logging.getLogger(__name__)
INTERVAL_SECONDS = 10.0
LAST_WORD_SECONDS = 3.0
"""How long the end of a pod waits for its last heartbeat."""


class Heart:
    """Writes heartbeats in a thread of its own, from the claim of the attempt to the end of the pod."""

    def __init__(self, store: Store, board: Board) -> None:
        self._store = store.with_patience(INTERVAL_SECONDS)
        self._board = board
        self._first: Heartbeat | None = None
        self._told = -1
        self._changes: dict[str, Any] = {}
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def begin(self, first: Heartbeat) -> None:
        """Beat from now on. ``first`` carries on what earlier attempts knew, so that an end during the start forgets nothing."""
        self._first = first
        self._thread.start()

    def note(self, **changes: Any) -> None:
        """Set fields of all heartbeats to come."""
        self._changes = {**self._changes, **changes}

    def beat(self) -> None:
        """Write now. Raises TrainerError when the store does not take it."""
        if self._first is None:
            return
        with self._writing:
            progress = self._board.snapshot()
            step = max(progress.step, self._first.step)
            write_heartbeat(self._store, self._first.model_copy(update={"step": step, "usage": progress.usage, **self._changes}))
            self._told = step

    def reached(self, step: int) -> None:
        """Beat before a checkpoint of ``step`` goes up: should the pod die in that upload, the next attempt counts these steps as lost.

        Does nothing when a heartbeat in the store knows of the step already.
        """
        if self._first is None or step <= self._told:
            return
        self._first = self._first.model_copy(update={"step": max(step, self._first.step)})
        self._try_to_beat()

    def close(self) -> None:
        """Beat once more and end; waits a moment for it."""
        self._ended.set()
        if self._first is not None:
            self._thread.join(LAST_WORD_SECONDS)

    def _run(self) -> None:
        while True:
            is_last = self._ended.is_set()
            self._try_to_beat()
            if is_last:
                return
            self._ended.wait(INTERVAL_SECONDS)

    def _try_to_beat(self) -> None:
        try:
            self.beat()
        except TrainerError as error:
            logger.debug("no heartbeat written: %s", error.message)

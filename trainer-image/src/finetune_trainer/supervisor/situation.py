"""The parts a session is made of, put together in one place."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from finetune_api.contract.progress import Command
from finetune_api.contract.store import Trigger
from finetune_trainer.protocol import Failed as WorkerFailure
from finetune_trainer.protocol import FinalSaved, StopAgreed
from finetune_trainer.supervisor.events import Event, Started
from finetune_trainer.supervisor.group import StopTrigger
from finetune_trainer.supervisor.outcome import Outcome
from finetune_trainer.supervisor.stall import Stall

logger = logging.getLogger(__name__)
TICK_SECONDS = 0.5


class LeaveError(Exception):
    """Ends the session at once with an outcome."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.message)
        self.outcome = outcome


@dataclass(frozen=True)
class StopOrder:
    """Somebody wants the group to stop."""

    trigger: StopTrigger
    at: float
    """Monotonic seconds."""
    command: Command | None = None


@dataclass
class Situation:
    """What has happened so far; written by the session's thread alone."""

    started: Started | None = None
    stop: StopOrder | None = None
    signalled_at: float | None = None
    released: bool = False
    """The operator ended the hold."""
    agreed: StopAgreed | None = None
    agreed_at: float = 0.0
    final: FinalSaved | None = None
    final_uri: str = ""
    failures: dict[int, WorkerFailure] = field(default_factory=dict)
    """Rank -> what it said before it left."""
    saved_step: int | None = None
    """Newest save handed over by the workers."""
    saved_trigger: Trigger | None = None
    """Why it was made: tells a pod why its ranks stopped before word from pod 0 arrives."""
    saved_at: float = 0.0
    committed_step: int | None = None
    """Newest step complete in the store (pod 0) or with this pod's part up (others)."""
    committed_at: float = 0.0
    given_up: dict[int, str] = field(default_factory=dict)
    """Step -> why its upload was given up."""
    lost: str = ""
    """Why the group cannot go on."""
    lost_at: float = 0.0
    will_rewind: bool = False
    """The next attempt goes back from the divergence that ended this one."""
    stall: Stall | None = None
    """Why the run is given up although nothing failed."""
    group_finished: bool = False
    oom_kills_before: int = 0
    save_commands: list[str] = field(default_factory=list)
    """Commands to save that the workers have not carried out yet."""


class EventQueue:
    """Events of all threads, handled in order by one."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()

    def put(self, event: Event) -> None:
        """Add an event; safe in a signal handler."""
        self._queue.put(event)

    def pump(
        self, handle: Callable[[Event], None], tick: Callable[[], None], *, until: Callable[[], bool], deadline: Callable[[], float | None]
    ) -> bool:
        """Handle events until a condition holds (True) or the deadline (monotonic, may move, None = none) has passed (False)."""
        while not until():
            limit = deadline()
            if limit is not None and time.monotonic() >= limit:
                return False
            with contextlib.suppress(queue.Empty):
                handle(self._queue.get(timeout=TICK_SECONDS if limit is None else max(0.0, min(TICK_SECONDS, limit - time.monotonic()))))
            tick()
        return True


def run_in_background(name: str, work: Callable[[], None], on_error: Callable[[Exception], None]) -> threading.Thread:
    """Run something in a thread; its failure is logged and handed on, never silence."""

    def guarded() -> None:
        try:
            work()
        except Exception as error:
            logger.warning("%s: %s", name, error, exc_info=not hasattr(error, "failure_class"))
            on_error(error)

    thread = threading.Thread(target=guarded, name=name, daemon=True)
    thread.start()
    return thread

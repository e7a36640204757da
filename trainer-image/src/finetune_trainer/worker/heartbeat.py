"""Signs of life for the supervisor: what this rank does, and a counter that moves while it makes headway."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from finetune_api.contract.progress import TrainerPhase
from finetune_trainer.protocol import Phase
from finetune_trainer.worker.link import Link

INTERVAL_SECONDS: Final = 1.0


class Heartbeat:
    """Sends a phase at once when it changes, and its counter at most once a second."""

    def __init__(self, link: Link, clock: Callable[[], float] = time.monotonic) -> None:
        self._link, self._clock = link, clock
        self._phase: TrainerPhase | None = None
        self._counter = 0
        self._sent = 0.0

    def beat(self, phase: TrainerPhase, counter: int) -> None:
        """Report headway."""
        now = self._clock()
        self._counter = counter
        if phase != self._phase or now - self._sent >= INTERVAL_SECONDS:
            self._phase, self._sent = phase, now
            self._link.send(Phase(phase=phase, counter=counter))

    @contextmanager
    def during(self, phase: TrainerPhase) -> Iterator[None]:
        """Be in another phase for a while: what comes after it is held to the limit of the phase before, from its end on."""
        before, counter = self._phase, self._counter
        self.beat(phase, 0)
        yield
        if before is not None:
            self.beat(before, counter)

"""Notices that nothing moves any more: every process counts what it gets done, and each phase has its time without a count."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from finetune_api.contract import metrics as names
from finetune_api.contract.progress import TrainerPhase
from finetune_api.models.spec import Retry
from finetune_trainer.supervisor.board import Board

logger = logging.getLogger(__name__)
CONDITION: Final = "TrainingStalled"
COMPUTING: Final[frozenset[TrainerPhase]] = frozenset({"Training", "Generating", "Evaluating"})
WAITING: Final[frozenset[TrainerPhase]] = frozenset({"Holding", "Finished"})
"""Phases in which nothing is meant to move."""
COMPUTE_FREE_SECONDS: Final = 1800.0
ABSENCE_SECONDS: Final = 30.0
"""A supervisor that did not look for so long was itself stopped (a frozen container): it knows nothing about that time."""
MIB: Final = 2**20


@dataclass(frozen=True)
class Stall:
    """A process that makes no headway."""

    rank: int | None
    """None: the pod itself, before its ranks run or after they ended."""
    phase: TrainerPhase
    seconds: float

    def __str__(self) -> str:
        who = "the pod" if self.rank is None else f"rank {self.rank}"
        return f"{who} has made no headway for {self.seconds:.0f} s in phase {self.phase}"


@dataclass(frozen=True)
class _Sign:
    phase: TrainerPhase
    counter: Hashable
    since: float


class StallWatch:
    """Keeps the last sign of life of each process: pure but for the times it is given."""

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._signs: dict[int | None, _Sign] = {}
        self._looked: float | None = None

    def limit(self, phase: TrainerPhase) -> float | None:
        """Seconds a phase may go without a count; None = for ever."""
        if phase in WAITING:
            return None
        return self._stall_seconds if phase in COMPUTING else max(COMPUTE_FREE_SECONDS, self._stall_seconds)

    def note(self, rank: int | None, phase: TrainerPhase, counter: Hashable, now: float) -> bool:
        """Take over a sign of life; True when it shows headway."""
        before = self._signs.get(rank)
        if before is not None and (before.phase, before.counter) == (phase, counter):
            return False
        self._signs[rank] = _Sign(phase, counter, now)
        return True

    def forget(self, rank: int | None) -> None:
        """Watch a process no longer: it has ended."""
        self._signs.pop(rank, None)

    def stalled(self, now: float) -> list[Stall]:
        """All processes over the limit of their phase, the one that has been still for longest first."""
        if self._looked is not None and now - self._looked > ABSENCE_SECONDS:
            self._signs = {rank: _Sign(sign.phase, sign.counter, now) for rank, sign in self._signs.items()}
        self._looked = now
        stalls = [
            Stall(rank, sign.phase, now - sign.since)
            for rank, sign in self._signs.items()
            if (limit := self.limit(sign.phase)) is not None and now - sign.since > limit
        ]
        return sorted(stalls, key=lambda stall: -stall.seconds)


class StallGuard:
    """Tells people about a stall, and whether the run has to be started again for it."""

    def __init__(self, policy: Retry, board: Board) -> None:
        self._watch = StallWatch(policy.stall_seconds)
        self._restarts = policy.on_stall == "restart"
        self._board = board
        self._told: Stall | None = None
        board.measure(names.STALLED, 0)

    def heard(self, rank: int | None, phase: TrainerPhase, counter: Hashable) -> None:
        """A process says what it does and how much of it is done."""
        if self._watch.note(rank, phase, counter, time.monotonic()):
            self._board.measure(names.LAST_HEADWAY, time.time())

    def ended(self, rank: int | None) -> None:
        """A process has ended, or the pod's own work has."""
        self._watch.forget(rank)

    def look(self) -> Stall | None:
        """Return a stall that has just begun; people are told of it, and of its end."""
        stalls = self._watch.stalled(time.monotonic())
        if not stalls:
            if self._told is not None:
                logger.info("headway again")
                self._tell(None)
            return None
        if self._told is not None:
            return None
        self._tell(stalls[0])
        return stalls[0]

    def must_restart(self, stall: Stall) -> bool:
        """Whether the run is given up. Not while the pod only uploads what is trained: a restart would lose it."""
        return self._restarts and stall.phase != "Uploading"

    def _tell(self, stall: Stall | None) -> None:
        self._told = stall
        self._board.measure(names.STALLED, 0 if stall is None else 1)
        self._board.warn(CONDITION, "" if stall is None else f"{stall}; the stacks of its processes are in the log.")


def written_mebibytes(io: Path = Path("/proc/self/io")) -> int:
    """Whole MiB this process has written to files so far: moves with every download, whichever library makes it."""
    fields = dict(line.split(": ") for line in io.read_text(encoding="ascii").splitlines())
    return int(fields["wchar"]) // MIB


def own_stacks() -> str:
    """Stacks of all threads of this process."""
    frames = sys._current_frames()  # noqa: SLF001 - documented; its underscore only warns of what it is for
    return "\n".join(f"thread {number}:\n{''.join(traceback.format_stack(frame))}" for number, frame in frames.items())

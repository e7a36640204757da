"""From what the processes of a pod did to one exit code and one cause: pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune_api.contract.failures import (
    CODE_PRECEDENCE,
    EXIT_DONE,
    EXIT_PEER_LOST,
    EXIT_STOPPED,
    EXIT_UNKNOWN,
    EXIT_USER_ERROR,
    REACTIONS,
    FailureClass,
)
from finetune_trainer.errors import TrainerError
from finetune_trainer.protocol import Failed

OOM_CODE = REACTIONS[FailureClass.OOM_KILLED].exit_code
CUDA_OOM_SIGNS = ("CUDA out of memory", "torch.OutOfMemoryError", "torch.cuda.OutOfMemoryError")


@dataclass(frozen=True)
class Outcome:
    """How a pod ends."""

    exit_code: int
    failure_class: FailureClass | None = None
    message: str = ""
    failed_rank: int | None = None
    log_lines: str = ""


@dataclass(frozen=True)
class WorkerEnd:
    """All that is known of an ended worker."""

    rank: int
    code: int
    at: float
    """Monotonic seconds."""
    failure: Failed | None = None
    """What it said before it left."""
    last_lines: Sequence[str] = ()
    was_terminated: bool = False
    """We sent SIGTERM before it could be asked to stop."""
    was_killed: bool = False
    """We killed it because a peer was gone."""


def outcome_of_error(error: Exception) -> Outcome:
    """How a pod ends whose supervisor could not go on."""
    if isinstance(error, TrainerError):
        return Outcome(error.exit_code, error.failure_class, error.message)
    return Outcome(EXIT_UNKNOWN, FailureClass.UNKNOWN, f"{type(error).__name__}: {error}")


def outcome_of_workers(ends: Sequence[WorkerEnd], *, was_oom_killed: bool) -> Outcome:
    """The pod's code by the contract's precedence; its cause is the earliest failure that is not a lost peer."""
    judged = [(end, *_judge(end, was_oom_killed=was_oom_killed)) for end in ends]
    code = min((code for _, code, _ in judged), key=precedence, default=EXIT_DONE)
    if code in (EXIT_DONE, EXIT_STOPPED):
        return Outcome(code)
    causes = [(end, kind) for end, own_code, kind in judged if own_code == code]
    end, kind = min(causes, key=lambda cause: cause[0].at)
    return Outcome(code, kind, _message(end, kind), end.rank, "\n".join(end.last_lines))


def precedence(code: int) -> int:
    """Position in the contract's order, the cause first; an OOM kill ranks as an unknown failure, other codes too."""
    return CODE_PRECEDENCE.index(code if code in CODE_PRECEDENCE else EXIT_UNKNOWN)


def count_oom_kills(files: Sequence[Path]) -> int:
    """OOM kills of this container's cgroup so far; 0 where the kernel does not say."""
    for path in files:
        try:
            lines = path.read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        counts: Mapping[str, str] = dict(line.split() for line in lines if len(line.split()) == 2)
        return int(counts.get("oom_kill", 0))
    return 0


def _judge(end: WorkerEnd, *, was_oom_killed: bool) -> tuple[int, FailureClass | None]:
    """Code and class of one worker."""
    if end.was_killed:
        return EXIT_PEER_LOST, FailureClass.PEER_LOST
    if end.was_terminated and end.code in (-signal.SIGTERM, 128 + signal.SIGTERM):
        return EXIT_STOPPED, None
    if end.code in (EXIT_DONE, EXIT_STOPPED):
        return end.code, None
    if end.code in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return (OOM_CODE, FailureClass.OOM_KILLED) if was_oom_killed else (EXIT_UNKNOWN, FailureClass.UNKNOWN)
    if end.failure is not None:
        return REACTIONS[end.failure.failure_class].exit_code, end.failure.failure_class
    if any(sign in line for line in end.last_lines for sign in CUDA_OOM_SIGNS):
        return EXIT_USER_ERROR, FailureClass.CUDA_OUT_OF_MEMORY
    if end.code == EXIT_PEER_LOST:
        return EXIT_PEER_LOST, FailureClass.PEER_LOST
    return EXIT_UNKNOWN, FailureClass.UNKNOWN


def _message(end: WorkerEnd, kind: FailureClass | None) -> str:
    if end.failure is not None and end.failure.failure_class == kind:
        return end.failure.message
    if end.code < 0:
        name = signal.Signals(-end.code).name if -end.code in set(signal.Signals) else str(-end.code)
        reason = ": the container's memory limit was reached" if kind == FailureClass.OOM_KILLED else ""
        return f"rank {end.rank} was ended by {name}{reason}."
    last = next((line for line in reversed(end.last_lines) if line.strip()), "")
    return f"rank {end.rank} exited with code {end.code}{f': {last.strip()[:500]}' if last else ''}."

"""What happens to a supervisor. Threads and the signal handler put these into one queue; one thread acts on them in order."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.contract.progress import Command
from finetune_api.contract.store import CheckpointRef, Manifest, Pinned
from finetune_trainer.protocol import WorkerMessage, WorkerPlan
from finetune_trainer.supervisor.group import StopTrigger


@dataclass(frozen=True)
class SignalReceived:
    """SIGTERM or SIGINT."""


@dataclass(frozen=True)
class Started:
    """What start-up found and agreed."""

    plan: WorkerPlan
    parent: CheckpointRef | None
    """Checkpoint the attempt starts from."""
    step: int
    """Its step, 0 from scratch."""
    known: Pinned
    """Facts this pod found."""
    stored: Pinned | None = None
    """Facts an earlier attempt froze."""
    starts_anew: bool = False
    """The user asked to begin from scratch: earlier facts are void."""


@dataclass(frozen=True)
class StartupDone:
    """Everything is on local disk and agreed: the workers can start."""

    started: Started


@dataclass(frozen=True)
class StartupFailed:
    """Starting is not possible."""

    error: Exception


@dataclass(frozen=True)
class MessageReceived:
    """A worker (or the prepare process: rank None) said something."""

    rank: int | None
    message: WorkerMessage


@dataclass(frozen=True)
class WorkerExited:
    """A worker ended."""

    local_rank: int
    code: int
    """Exit code, negative for a signal."""
    at: float
    """Monotonic seconds."""


@dataclass(frozen=True)
class CommandReceived:
    """The operator asks for something."""

    command: Command
    at: float


@dataclass(frozen=True)
class Superseded:
    """A newer attempt exists: leave, commit nothing."""

    reason: str


@dataclass(frozen=True)
class CheckpointCommitted:
    """A manifest was written (pod 0), or this pod's part is up (others: manifest None)."""

    step: int
    manifest: Manifest | None


@dataclass(frozen=True)
class UploadFailed:
    """An upload was given up."""

    step: int
    error: Exception


@dataclass(frozen=True)
class FinalCommitted:
    """The final adapter or model exists in the store."""

    uri: str


@dataclass(frozen=True)
class BackgroundFailed:
    """Something that had to work, did not: the final upload, or freezing the run's facts."""

    error: Exception


@dataclass(frozen=True)
class GroupLost:
    """Another pod failed, left, or cannot be reached."""

    reason: str


@dataclass(frozen=True)
class GroupStopping:
    """Another pod says: all ranks stop."""

    trigger: StopTrigger


@dataclass(frozen=True)
class StepsSkipped:
    """Pod 0 says: these saves are not uploaded."""

    steps: tuple[int, ...]


@dataclass(frozen=True)
class GroupFinished:
    """Pod 0 says: the final commit is known."""


Event = (
    SignalReceived
    | StartupDone
    | StartupFailed
    | MessageReceived
    | WorkerExited
    | CommandReceived
    | Superseded
    | CheckpointCommitted
    | UploadFailed
    | FinalCommitted
    | BackgroundFailed
    | GroupLost
    | GroupStopping
    | StepsSkipped
    | GroupFinished
)

"""What the supervisors of a rank group tell each other.

Every pod other than 0 posts its own report again and again and gets the group's state back: both are whole documents, so that a lost
message never matters.
"""

from __future__ import annotations

from typing import Literal

from finetune_api.contract.base import ContractModel
from finetune_api.contract.run_config import JobIdentity
from finetune_api.contract.store import CheckpointRef, Pinned, Rewind

StopTrigger = Literal["pause", "stop", "signal"]


def pod_path(job: JobIdentity, run: int, pod: int) -> str:
    """Resource of a pod; the job's uid and the run keep a left-over pod of another run from being taken for one of this group."""
    return f"/v1/jobs/{job.uid}/runs/{run}/pods/{pod}"


class GroupState(ContractModel):
    """What pod 0 decided so far."""

    attempt: int = 0
    """0 until one is claimed."""
    pinned: Pinned | None = None
    """Model revision and digests every pod must find; set once pod 0 knows them."""
    round: int = 0
    """Number of the choice of a checkpoint, raised each time a pod rejects one; 0 = none made yet."""
    resume: CheckpointRef | None = None
    """The choice of this round; None = from scratch."""
    manifest_sha256: str | None = None
    """Digest of the manifest pod 0 read, None for a plain Trainer directory."""
    lost_until_step: int = 0
    rewinds: list[Rewind] = []
    prepared_key: str | None = None
    """Prepared rows are complete in the store under this key."""
    may_start: bool = False
    """All pods verified the choice: start the workers."""
    stopping: StopTrigger | None = None
    skipped_steps: list[int] = []
    """Saves that are not uploaded because a newer one replaced them."""
    has_finished: bool = False
    """The final commit is known."""
    lost: str = ""
    """Why the group cannot go on, when it cannot."""


class PodReport(ContractModel):
    """What a pod did so far."""

    pod: int
    pod_uid: str
    round: int = 0
    """Round this pod has checked its files for."""
    problem: str = ""
    """Why the checkpoint of that round is no good; empty = verified."""
    fetched: int = 0
    """MiB this pod has written: moves while it fetches what it needs."""
    stopping: StopTrigger | None = None
    """This pod was told to stop: all have to."""
    failure: str = ""
    """This pod ends with a failure."""
    has_left: bool = False
    """This pod ends; nothing more will come."""
    saw_finish: bool = False
    """It knows that the final commit exists."""

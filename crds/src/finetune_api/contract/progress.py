"""The progress protocol: rank 0's supervisor posts, the operator answers with commands.

Wire-compatible with Kubeflow Trainer's ``KUBEFLOW_TRAINER_SERVER_URL`` protocol (KEP-2779): a stock client sends ``trainerStatus``
alone and ignores the reply.

``POST /v1/namespaces/<namespace>/finetunejobs/<name>/progress`` with ``Authorization: Bearer <token>``. Answers: 200 with
:class:`ProgressReply`; 401 token not valid; 403 token of another job; 404 no such job; 409 a newer attempt is known (the poster must
stop); 413/422 unreadable; 429/503 try again later.
A 200 to a post with ``stopped`` or ``finished`` means that it is stored in the job's status.
"""

from __future__ import annotations

from typing import Literal

from finetune_api.contract.base import ContractModel
from finetune_api.contract.store import BestCheckpoint, CheckpointRef, Rewind, Trigger, UsageSeconds


def progress_path(namespace: str, name: str) -> str:
    """Path of a job's progress resource."""
    return f"/v1/namespaces/{namespace}/finetunejobs/{name}/progress"


TrainerPhase = Literal[
    "Starting", "Preparing", "Loading", "Training", "Generating", "Evaluating", "Saving", "Uploading", "Holding", "Exporting", "Finished"
]
"""What the trainer does now. Generating = completions for the next steps. Holding = stopped as asked, checkpoint committed, waiting to be
released."""


class KubeflowMetric(ContractModel):
    """A metric of the stock protocol."""

    name: str
    value: str


class TrainerStatus(ContractModel):
    """The stock part of a post."""

    last_updated_time: str
    progress_percentage: int | None = None
    estimated_remaining_seconds: int | None = None
    metrics: list[KubeflowMetric] = []


class CheckpointReport(ContractModel):
    """A committed checkpoint."""

    attempt: int
    step: int
    uri: str
    size_bytes: int
    created_at: str
    trigger: Trigger
    eval_loss: float | None = None
    resumable: bool = True


class Stopped(ContractModel):
    """The answer to pause or stop: the ranks agreed, saved, committed, and hold."""

    command_id: str
    step: int
    saved: bool
    """False: nothing was there to save (before the first step), or the store could not be reached (see ``lost_steps``)."""
    checkpoint: CheckpointRef | None = None
    lost_steps: int = 0
    seconds: dict[str, float] = {}
    """Parts of the latency: ask (command received -> ranks agreed is ``agree``), agree, save, upload."""


class Finished(ContractModel):
    """Training is done and the final adapter or model is committed."""

    step: int
    final_uri: str
    source: Literal["best", "last"]
    early_stopped: bool = False
    metrics: dict[str, float] = {}


class FineTuneProgress(ContractModel):
    """Our part of a post. Stored (without ``run_config`` facts) as ``status.progress``."""

    contract_version: int
    run: int
    attempt: int
    phase: TrainerPhase
    counter: int = 0
    """Moves while the phase makes headway: micro-batches, evaluation batches, generated tokens, rows."""
    step: int = 0
    total_steps: int = 0
    epoch: float = 0.0
    loss: float | None = None
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    step_seconds: float | None = None
    tokens_seen: int | None = None
    gpu_memory_bytes: int | None = None
    """Most GPU memory rank 0 had allocated at once; None on CPU."""
    mfu: float | None = None
    """Model FLOPs utilization, 0-1; None where the GPU's peak is not known."""
    metrics: dict[str, float] = {}
    """Numbers of the method at the last logged step, by the trainer's names: reward, kl, rewards/margins, logps/chosen, ..."""
    checkpoints: list[CheckpointReport] = []
    """Newest last, at most 5."""
    checkpoints_saved: int = 0
    """How many this attempt has made complete."""
    best: BestCheckpoint | None = None
    parent: CheckpointRef | None = None
    """Checkpoint this attempt started from."""
    lost_steps: int = 0
    """Steps that the previous attempt had trained and this one trains again."""
    rewinds: list[Rewind] = []
    """Divergences gone back from, oldest first, at most :data:`finetune_api.contract.store.MAX_REWINDS`."""
    facts: dict[str, str] = {}
    """Resolved by the trainer: dtype, strategy, trainableParameters, totalParameters, modelRevision, datasetDigest, trainRows,
    evalRows, ..."""
    warnings: dict[str, str] = {}
    """Condition type -> message, e.g. ConditionalWritesUnsupported, CheckpointSkipped, CheckpointRejected, ExcessiveTruncation."""
    usage: UsageSeconds | None = None
    """Up to this post, all attempts together; no part of it ever falls."""
    save_seconds: float | None = None
    """How long training waited for the newest save."""
    upload_seconds: float | None = None
    """From the newest save to its checkpoint being complete in the store."""
    stopped: Stopped | None = None
    finished: Finished | None = None
    acknowledged: list[str] = []
    """Ids of commands carried out (checkpoint requests)."""


class ProgressPost(ContractModel):
    """Body of a post."""

    trainer_status: TrainerStatus
    finetune: FineTuneProgress | None = None
    """Absent in posts of stock clients."""


class Command(ContractModel):
    """Something to do. ``pause`` and ``stop`` mean the same to the trainer; ``release`` ends a hold early."""

    id: str
    action: Literal["pause", "stop", "checkpoint", "release"]
    timeout_seconds: int | None = None
    """For pause and stop: how long the operator will wait."""
    if_unsaved: Literal["Wait", "Discard"] | None = None


class ProgressReply(ContractModel):
    """The operator's answer."""

    contract_version: int
    commands: list[Command] = []

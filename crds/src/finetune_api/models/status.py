"""The FineTuneJob status: what the operator says. Kept small: etcd pays for every byte at every write (bar: 8 KB in use)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from finetune_api.contract.failures import FailureClass


class StatusModel(BaseModel):
    """Base of status objects: unknown fields are ignored, so that an older operator reads what a newer one wrote."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True, use_attribute_docstrings=True)


class Phase(StrEnum):
    """Derived from conditions and what exists; a printer column, not a state machine of its own."""

    PENDING = "Pending"
    VALIDATING = "Validating"
    QUEUED = "Queued"
    STARTING = "Starting"
    TRAINING = "Training"
    EVALUATING = "Evaluating"
    EXPORTING = "Exporting"
    PAUSING = "Pausing"
    PAUSED = "Paused"
    RESUMING = "Resuming"
    STOPPING = "Stopping"
    STOPPED = "Stopped"
    CANCELLED = "Cancelled"
    FAILED = "Failed"
    SUCCEEDED = "Succeeded"


FINAL_PHASES = frozenset({Phase.SUCCEEDED, Phase.CANCELLED})
"""Never left again."""
RESTING_PHASES = frozenset({Phase.PAUSED, Phase.STOPPED, Phase.CANCELLED, Phase.FAILED, Phase.SUCCEEDED})
"""No pods."""

Text = Annotated[str, StringConstraints(max_length=1024)]
Short = Annotated[str, StringConstraints(max_length=256)]
Uri = Annotated[str, StringConstraints(max_length=2048)]
Time = Annotated[str, StringConstraints(max_length=40), Field(json_schema_extra={"format": "date-time"})]


class ConditionType(StrEnum):
    """Condition types of a FineTuneJob. Ready, Reconciling and Stalled follow kstatus."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    VALID = "Valid"
    ADMITTED = "Admitted"
    SUSPENDED = "Suspended"
    CHECKPOINT_READY = "CheckpointReady"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Condition(StatusModel):
    """A condition as in the Kubernetes API conventions."""

    type: Short
    """What is said."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Short
    """One CamelCase word why."""
    message: Text = ""
    """A sentence for people."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: int = 0
    """metadata.generation this was computed from."""


class Resolved(StatusModel):
    """A value the job did not write itself."""

    value: Annotated[str, StringConstraints(max_length=256)]
    """The value, as JSON where it is no string."""
    source: Literal["preset", "model", "adapter", "method", "default", "derived", "trainer"]
    """Who decided: preset, base model, adapter type, method, the default table, a rule, or the trainer at start."""


class StatusProgress(StatusModel):
    """Live progress of the current run, written by field manager finetune-progress alone."""

    run: int = 0
    attempt: int = 0
    phase: Short = ""
    """What the trainer does now."""
    step: int = 0
    """Optimizer steps done."""
    total_steps: int = 0
    """Optimizer steps planned."""
    percent: int = 0
    """Share done, 0-100."""
    epoch: float = 0.0
    loss: float | None = None
    """Training loss of the last logged step."""
    eval_loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: int | None = None
    """Estimated seconds to the end."""
    eta: Annotated[str, StringConstraints(max_length=16)] | None = None
    """The same for people, e.g. 1h23m."""
    updated_at: Time | None = None
    """When the trainer last said something new."""
    report: Annotated[str, StringConstraints(max_length=6144)] | None = None
    """Compact JSON of what reconciliation needs from the last post: checkpoints, best, stopped, finished, warnings, facts, usage,
    acknowledged commands."""


class CheckpointStatus(StatusModel):
    """A complete checkpoint in the store."""

    step: int
    attempt: int
    uri: Uri
    size_bytes: int = 0
    created_at: Time
    trigger: Short
    eval_loss: float | None = None
    resumable: bool = True


class CheckpointsStatus(StatusModel):
    """The ledger's end; the whole is in the store."""

    latest: CheckpointStatus | None = None
    best: CheckpointStatus | None = None
    recent: Annotated[list[CheckpointStatus], Field(max_length=5)] = []
    """Newest last."""


class AttemptStatus(StatusModel):
    """One start of the rank group."""

    run: int
    attempt: int | None = None
    """Number in the store's ledger; unset when the group ended before it claimed one."""
    reason: Short
    """Why it was started: Created, Resumed, Retried, NodeLost, Preempted, ..."""
    started_at: Time
    ended_at: Time | None = None
    from_step: int = 0
    to_step: int | None = None
    lost_steps: int = 0
    """Steps of the attempt before that had to be trained again."""
    outcome: Short | None = None
    """Succeeded, Paused, Stopped, Cancelled, or a failure class."""
    exit_code: int | None = None


class UsageStatus(StatusModel):
    """GPU seconds (ranks' wall seconds on CPU) by use; paused time is never counted."""

    starting_seconds: float = 0.0
    productive_seconds: float = 0.0
    checkpointing_seconds: float = 0.0
    replayed_seconds: float = 0.0
    evaluating_seconds: float = 0.0
    lost_steps: int = 0
    """Steps trained more than once, over all attempts."""


class FailureStatus(StatusModel):
    """Why the job failed."""

    failure_class: Annotated[FailureClass, Field(alias="class")]
    message: Text
    exit_code: int | None = None
    failed_rank: int | None = None
    last_log_lines: Annotated[str, StringConstraints(max_length=2048)] = ""
    """Last lines of the rank that failed first."""
    advice: Text = ""
    """What to do."""
    run: int = 0


class PauseStatus(StatusModel):
    """The last pause, stop or cancel."""

    command_id: Short
    """Identifies the request towards the trainer."""
    action: Literal["pause", "stop"]
    requested_at: Time
    saved: bool | None = None
    """Whether the step was saved; unset while it is under way."""
    step: int | None = None
    lost_steps: int = 0
    seconds: dict[Annotated[str, StringConstraints(max_length=32)], float] = Field(default={}, max_length=8)
    """Parts of the latency: agree, save, upload, release."""


class RetryStatus(StatusModel):
    """The retry budget."""

    used: int = 0
    """Counted restarts since the last new checkpoint."""
    checkpoint_step: int = 0
    """Newest checkpoint when the budget was last set back."""
    next_start_at: Time | None = None


class Artifacts(StatusModel):
    """What a finished job leaves."""

    final_uri: Uri | None = None
    """The adapter (lora) or model (full)."""
    kind: Literal["lora", "full"] | None = None
    source: Literal["best", "last"] | None = None
    step: int | None = None


class FineTuneJobStatus(StatusModel):
    """Status of a FineTuneJob."""

    observed_generation: int = 0
    """metadata.generation the status was computed from."""
    phase: Phase = Phase.PENDING
    """Where the job is; derived."""
    reason: Short | None = None
    """Why it is there: UserRequested, AwaitingPods, a failure class, ..."""
    run: int = 0
    """Number of the current or last run: the Job <name>-r<run>."""
    attempts: Annotated[list[AttemptStatus], Field(max_length=10)] = []
    """The last ten attempts, newest last."""
    attempt_count: int = 0
    """All attempts."""
    output_uri: Uri | None = None
    """Prefix of everything the job writes."""
    resolved: dict[Annotated[str, StringConstraints(max_length=64)], Resolved] = Field(default={}, max_length=96)
    """Values the job did not write itself, with their source; keys are field paths."""
    facts: dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=256)]] = Field(
        default={}, max_length=32
    )
    """What the trainer found: trainableParameters, trainRows, dtype, modelRevision, ..."""
    identity_digest: Short | None = None
    """Digest of the fields that make this training what it is; fixed by the first run."""
    preflight_digest: Short | None = None
    """Run config digest whose preflight passed."""
    progress: StatusProgress | None = None
    checkpoints: CheckpointsStatus = CheckpointsStatus()
    usage: UsageStatus = UsageStatus()
    retry: RetryStatus = RetryStatus()
    pause: PauseStatus | None = None
    failure: FailureStatus | None = None
    artifacts: Artifacts = Artifacts()
    last_handled_request: Short | None = None
    """Last value of the annotation finetune.dev/request that was acted on."""
    replicas: int = 0
    """Pods that exist now (status side of /scale)."""
    last_replicas: int = 0
    """spec.replicas of the last run: what to scale back to after a pause."""
    selector: Short = ""
    """Label selector of the pods (for /scale)."""
    started_at: Time | None = None
    finished_at: Time | None = None
    conditions: Annotated[
        list[Condition], Field(max_length=24, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    ] = []

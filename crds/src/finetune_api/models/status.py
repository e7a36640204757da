"""The FineTuneJob status: what the operator says. Kept small: etcd pays for every byte at every write (bar: 8 KB in use)."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.contract.failures import FailureClass
from finetune_api.models.estimate import Estimate
from finetune_api.models.status_base import Short, StatusModel, Text, Time, Uri


class Phase(StrEnum):
    """Derived from conditions and what exists; a printer column, not a state machine of its own."""

    PENDING = "Pending"
    VALIDATING = "Validating"
    AWAITING_APPROVAL = "AwaitingApproval"
    AWAITING_BALANCE = "AwaitingBalance"
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


class ConditionType(StrEnum):
    """Condition types of a FineTuneJob. Ready, Reconciling and Stalled follow kstatus."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    VALID = "Valid"
    ENVIRONMENT_READY = "EnvironmentReady"
    TOKEN_VALID = "TokenValid"
    ADMITTED = "Admitted"
    SUSPENDED = "Suspended"
    CHECKPOINT_READY = "CheckpointReady"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    EXPORTED = "Exported"
    EXPORT_FAILED = "ExportFailed"
    OPTIMIZED_BACKEND = "OptimizedBackend"
    BALANCE_SUFFICIENT = "BalanceSufficient"


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
    source: Literal["preset", "dataset", "model", "gpuType", "backend", "adapter", "method", "default", "derived", "trainer"] = "default"
    """Who decided: preset, Dataset, BaseModel, GpuType, backend, method, adapter type, a rule, or the trainer at start. Not written: the
    table of defaults."""
    name: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Name of the Dataset, BaseModel or GpuType that decided."""
    reason: Short | None = None
    """Why this value, where the preset auto reckoned it."""


class StatusProgress(StatusModel):
    """Live progress of the current run, written by field manager finetune-progress alone."""

    run: int = 0
    """Run the numbers are of."""
    attempt: int = 0
    """Attempt the numbers are of."""
    phase: Short = ""
    """What the trainer does now."""
    step: int = 0
    """Optimizer steps done."""
    total_steps: int = 0
    """Optimizer steps planned."""
    steps_remaining: int | None = None
    """Optimizer steps left; unset while the number planned is not known."""
    percent: int = 0
    """Share done, 0-100."""
    epoch: float = 0.0
    """Passes over the data done."""
    loss: float | None = None
    """Training loss of the last logged step."""
    eval_loss: float | None = None
    """Loss of the last evaluation."""
    learning_rate: float | None = None
    """Learning rate of the last logged step."""
    grad_norm: float | None = None
    """Gradient norm of the last logged step, before clipping."""
    tokens_per_second: float | None = None
    """Tokens trained per second, all ranks together."""
    metrics: Annotated[dict[Annotated[str, StringConstraints(max_length=64)], float], Field(max_length=16)] | None = None
    """Numbers of the method at the last logged step: reward, kl, rewards/margins, ..."""
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
    """Optimizer step."""
    attempt: int
    """Attempt that wrote it."""
    uri: Uri
    """Its directory in the store."""
    size_bytes: int = 0
    """Bytes of all its files."""
    created_at: Time
    """When it was complete in the store."""
    trigger: Short
    """Why it was written: steps, epoch, interval, pause, stop, signal, command, final."""
    eval_loss: float | None = None
    """Loss of the evaluation at this step."""
    resumable: bool = True
    """False once only the weights are kept."""


class CheckpointsStatus(StatusModel):
    """The ledger's end; the whole is in the store."""

    latest: CheckpointStatus | None = None
    """The one a restart would resume from."""
    best: CheckpointStatus | None = None
    """The one with the lowest evaluation loss."""
    recent: Annotated[list[CheckpointStatus], Field(max_length=5)] = []
    """Newest last."""
    saved: int = 0
    """How many the job has written in all, over all attempts; those that were removed since are among them."""


class AttemptStatus(StatusModel):
    """One start of the rank group."""

    run: int
    """Run it belongs to."""
    attempt: int | None = None
    """Number in the store's ledger; unset when the group ended before it claimed one."""
    reason: Short
    """Why it was started: Created, Resumed, Retried, NodeLost, Preempted, ..."""
    started_at: Time
    """When its pods were created."""
    ended_at: Time | None = None
    """When its last container ended."""
    from_step: int = 0
    """Optimizer step it started from."""
    to_step: int | None = None
    """Last optimizer step it reached."""
    lost_steps: int = 0
    """Steps of the attempt before that had to be trained again."""
    checkpoints: int = 0
    """Checkpoints it has written."""
    outcome: Short | None = None
    """Succeeded, Paused, Stopped, Cancelled, or a failure class."""
    exit_code: int | None = None
    """Exit code of the cause, see the table of failure classes."""


class UsageStatus(StatusModel):
    """GPU seconds (ranks' wall seconds on CPU) by use; paused time is never counted."""

    starting_seconds: float = 0.0
    """From pod start to the first optimizer step."""
    productive_seconds: float = 0.0
    """Optimizer steps that count."""
    checkpointing_seconds: float = 0.0
    """Training waited for a save."""
    replayed_seconds: float = 0.0
    """Steps trained again because they were lost."""
    evaluating_seconds: float = 0.0
    """Evaluation."""
    lost_steps: int = 0
    """Steps trained more than once, over all attempts."""
    active_seconds: float = 0.0
    """Seconds the rank group was at work, over all attempts; paused time is free."""
    clocks: Annotated[list[float], Field(max_length=5)] = []
    """Wall seconds starting, productive, checkpointing, replayed, evaluating as last reported: what is reported again counts once."""
    hourly_rate: Short | None = None
    """Price of one GPU for an hour in the current or last run, from its GpuType; unset where that has none."""
    currency: Short | None = None
    """Currency of cost and hourlyRate."""
    cost: Short | None = None
    """What the GPU seconds of all runs with a price cost, in currency; paused time is free."""
    rate_seconds: Short | None = None
    """Sum of GPU seconds times their hourly rate, exactly: cost is a 3600th of it."""


class HoldStatus(StatusModel):
    """A pause the operator itself decided on; only the request resume ends it."""

    reason: Short
    """Why, in one word: LimitReached, BalanceExhausted."""
    message: Text
    """What was reached, and how to go on."""
    since: Time
    """When."""


class FailureStatus(StatusModel):
    """Why the job failed."""

    failure_class: Annotated[FailureClass, Field(alias="class")]
    """One of a closed set; decides on retry and advice."""
    message: Text
    """What happened, in one sentence."""
    exit_code: int | None = None
    """Exit code of the process that failed first."""
    failed_rank: int | None = None
    """Rank that failed first."""
    last_log_lines: Annotated[str, StringConstraints(max_length=2048)] = ""
    """Last lines of the rank that failed first."""
    advice: Text = ""
    """What to do."""
    run: int = 0
    """Run that failed."""


class PauseStatus(StatusModel):
    """The last pause, stop or cancel."""

    command_id: Short
    """Identifies the request towards the trainer."""
    run: int = 0
    """Run whose pods are to go."""
    action: Literal["pause", "stop"]
    """pause, or stop (a pause whose spec may be edited)."""
    requested_at: Time
    """When it was asked for."""
    saved: bool | None = None
    """Whether the step was saved; unset while it is under way."""
    step: int | None = None
    """Optimizer step that was saved."""
    lost_steps: int = 0
    """Steps that were given up because they could not be saved."""
    seconds: dict[Annotated[str, StringConstraints(max_length=32)], float] = Field(default={}, max_length=8)
    """Parts of the latency: agree, save, upload, release."""


class RetryStatus(StatusModel):
    """The retry budget."""

    used: int = 0
    """Counted restarts since the last new checkpoint."""
    checkpoint_step: int = 0
    """Newest checkpoint when the budget was last set back."""
    next_start_at: Time | None = None
    """When the next run starts, while it waits."""


class ArtifactStatus(StatusModel):
    """One form of the result, complete in the store or on a hub."""

    type: Short
    """merged, gguf, hub."""
    name: Short = ""
    """Number format of a GGUF file, repository of a hub."""
    uri: Uri
    """The directory, file or repository."""
    size_bytes: int = 0
    """Bytes of all its files."""
    digest: Short | None = None
    """sha256 of a single file, else of the list of all files' digests; the commit on a hub."""
    max_delta: float | None = None
    """Largest difference of its logits to those of the final weights, measured after reading it back in a fresh process."""


class ExportStatus(StatusModel):
    """Merge, GGUF and push: work after the training, on CPUs."""

    serial: int
    """Number of its current or last pod's Job, <name>-export-<serial>; each try is another one."""
    state: Literal["Open", "Done", "Failed"] = "Open"
    """Open: wanted and not finished."""
    failures: int = 0
    """Counted tries that failed, since it was asked for."""
    next_start_at: Time | None = None
    """When the next try begins, while it waits."""


class Artifacts(StatusModel):
    """What a finished job leaves."""

    final_uri: Uri | None = None
    """The adapter (lora) or model (full)."""
    kind: Literal["lora", "full"] | None = None
    """lora = an adapter, full = a whole model."""
    source: Literal["best", "last"] | None = None
    """Whether these are the best or the last weights."""
    step: int | None = None
    """Optimizer step of the weights."""
    early_stopped: bool = False
    """True: training ended before its last step, since the evaluation loss did not fall any more (earlyStopping)."""
    eval_loss: float | None = None
    """Loss of the last evaluation."""
    outputs: Annotated[list[ArtifactStatus], Field(max_length=6)] = []
    """Other forms of the result: merged model, GGUF files, a repository on a hub."""


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
    store_secret: Short | None = None
    """Secret with the store's keys where checkpoint.secretRef names none. Unset: finetune-storage."""
    method: Short | None = None
    """Method, or the name of the TrainingMethod; unset until the spec could be resolved."""
    gpus: int | None = None
    """GPUs the spec asks for, all pods together; 0 on CPU and with replicas 0. Unset until the spec could be resolved."""
    resolved: dict[Annotated[str, StringConstraints(max_length=128)], Resolved] = Field(default={}, max_length=112)
    """Values the job did not write itself, with their source; keys are field paths."""
    facts: dict[Annotated[str, StringConstraints(max_length=64)], Annotated[str, StringConstraints(max_length=256)]] = Field(
        default={}, max_length=32
    )
    """What the trainer found: trainableParameters, trainRows, dtype, modelRevision, ..."""
    identity_digest: Short | None = None
    """Digest of the fields that make this training what it is; fixed by the first run."""
    estimate: Estimate | None = None
    """What is known beforehand."""
    preflight_digest: Short | None = None
    """Run config digest whose preflight passed."""
    progress: StatusProgress | None = None
    """Live numbers of the current run."""
    checkpoints: CheckpointsStatus = CheckpointsStatus()
    """What a restart or an export can use."""
    usage: UsageStatus = UsageStatus()
    """What the GPUs were used for."""
    retry: RetryStatus = RetryStatus()
    """Restarts after failures."""
    pause: PauseStatus | None = None
    """The last pause, stop or cancel."""
    hold: HoldStatus | None = None
    """Why the operator paused the job by itself (a limit, or the Budget); ended by the request resume."""
    approved_cost: Short | None = None
    """Cost that was approved by the request approve (Budget spec.approvalAbove)."""
    failure: FailureStatus | None = None
    """Why the job failed, or why its last run did."""
    artifacts: Artifacts = Artifacts()
    """What a finished job leaves."""
    artifacts_expire_at: Time | None = None
    """When what a cancelled job wrote is removed from the store, unless it is promoted before."""
    artifacts_removed_at: Time | None = None
    """When that was done."""
    dashboard_url: Annotated[Uri | None, Field(alias="dashboardURL")] = None
    """The job's dashboard in Grafana, where the operator knows Grafana's address."""
    export: ExportStatus | None = None
    """The making of other forms of the result, once it was asked for."""
    last_handled_request: Short | None = None
    """Last value of the annotation finetune.dev/request that was acted on."""
    replicas: int = 0
    """Pods that exist now (status side of /scale)."""
    last_replicas: int = 0
    """spec.replicas of the last run: what to scale back to after a pause."""
    selector: Short = ""
    """Label selector of the pods (for /scale)."""
    started_at: Time | None = None
    """When the first run was created."""
    finished_at: Time | None = None
    """When the job reached a final phase."""
    conditions: Annotated[
        list[Condition], Field(max_length=32, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    ] = []
    """Conditions as in the Kubernetes API conventions; Ready, Reconciling and Stalled as in kstatus."""

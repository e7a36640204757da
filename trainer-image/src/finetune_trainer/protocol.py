"""Between the supervisor (no torch) and the processes it starts in the same pod: files and a Unix socket.

The supervisor writes a :class:`WorkerPlan`, starts one worker per local rank with torchrun's environment and listens on ``link.sock`` (JSON
lines, one message per line, both directions). A worker connects, says :class:`Hello`, reports, and obeys commands. All uploads, downloads,
progress posts and metrics are the supervisor's; a worker only reads and writes local directories.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from finetune_api.contract.base import ContractModel
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.progress import TrainerPhase
from finetune_api.contract.store import BestCheckpoint, EarlyStoppingState, Manifest, Pinned, Rewind, SamplePrompt, Trigger, UsageSeconds

ENV_WORKER_PLAN = "FINETUNE_WORKER_PLAN"
ENV_LINK = "FINETUNE_LINK"
"""Path of the Unix socket."""
ENV_PREPARE_PLAN = "FINETUNE_PREPARE_PLAN"
"""Path of the :class:`PreparePlan`; set for the ``prepare`` process only."""
ENV_MEASURE_PLAN = "FINETUNE_MEASURE_PLAN"
"""Path of the :class:`MeasurePlan`; set for the ``prepare`` program when preflight starts it."""
PREPARATION_VERSION = 3
"""Part of the key of prepared rows: raise it with every change of what the prepare process writes for equal inputs."""


class PreparePlan(ContractModel):
    """Input of the ``prepare`` process: raw rows in, rows ready for training out. Run on pod 0 only; no torch.

    The plan's path is in ``FINETUNE_PREPARE_PLAN``. The process also gets ``FINETUNE_LINK`` and may send ``phase``, ``warning`` and
    ``failed`` there, without a ``hello``; it exits 0, or 42 after a ``failed`` (DataError, ConfigurationError, ModelError).
    """

    run_config: Path
    tokenizer_dir: Path
    train_files: list[list[Path]]
    """Files of each source, in the order of :attr:`finetune_api.models.sources.Dataset.parts`."""
    eval_files: list[Path]
    output_dir: Path
    """Gets ``train/`` and ``eval/`` (Arrow, ``datasets.save_to_disk``) and ``prepared.json`` (:class:`PreparedSummary`)."""
    dataset_digest: str
    has_vision: bool = False
    """The model is a vision-language model: its processor is beside the tokenizer, and rows may have images, which go to ``images/``."""


class PreparedSummary(ContractModel):
    """What preparing found; the source of :class:`finetune_api.contract.store.PreparedManifest`."""

    train_rows: int
    eval_rows: int
    truncated_prompts: int = 0
    truncated_rows: int = 0
    is_excerpt: bool = False
    """Training rows are the first ones of a stream; how many there are is not known."""
    skipped_rows: int = 0
    """Malformed rows that were left out (``dataset.onError: skip``)."""
    tokens: dict[str, float] = {}
    """p50, p95, max, total tokens of the training rows (before packing)."""
    samples: list[dict[str, object]] = []
    """Five raw training rows, chosen by seed (V-03)."""
    prompts: list[SamplePrompt] = []
    """Prompts of training and evaluation rows, for the final model to answer."""
    images: int = 0
    """Different images that rows show."""
    warnings: dict[str, str] = {}


class MeasurePlan(ContractModel):
    """Input of the ``prepare`` program for preflight: count the tokens of some rows. Its path is in ``FINETUNE_MEASURE_PLAN``."""

    run_config: Path
    tokenizer_dir: Path
    files: list[list[Path]]
    """Files of each source, in the order of :attr:`finetune_api.models.sources.Dataset.parts`."""
    output: Path
    """Gets a :class:`MeasuredTokens`."""
    has_vision: bool = False
    """As in :class:`PreparePlan`."""


class MeasuredTokens(ContractModel):
    """Answer to a :class:`MeasurePlan`."""

    rows: int
    tokens: dict[str, float] = {}
    """p50, p95, max tokens of a row."""
    cut: int = 0
    """Rows longer than a sequence."""
    warnings: dict[str, str] = {}
    failure_class: FailureClass | None = None
    """Set, with the message, when rows, tokenizer or templates cannot be used."""
    message: str = ""


class StreamFile(ContractModel):
    """A file that is read from where it lies."""

    name: str
    url: str
    size: int


class DataStream(ContractModel):
    """Files of a dataset of the hub that are read during the training, in the order of their names."""

    commit: str
    files: list[StreamFile]


class ResumePoint(ContractModel):
    """A verified checkpoint on local disk."""

    directory: Path
    manifest: Manifest | None = None
    """None for a plain Trainer directory from elsewhere (resumeFrom): its step is read from trainer_state.json."""


class WorkerPlan(ContractModel):
    """Input of every worker of a pod."""

    run_config: Path
    attempt: int
    model_dir: Path
    tokenizer_dir: Path
    prepared_dir: Path
    """As written by the prepare process."""
    stream: DataStream | None = None
    """Where training rows are read instead; what is prepared of them is an excerpt."""
    peft_config: Path | None = None
    """The adapter's shape, where it is not in the spec."""
    attached_dir: Path | None = None
    """The adapter that training goes on from; ``peft_config`` is its own."""
    reference_dir: Path | None = None
    """The model to stay close to, where it is another than the base."""
    reward_dir: Path | None = None
    """The model that scores answers."""
    reward_sources: dict[str, Path] = {}
    """URI of a reward function's Python file -> the file."""
    resume: ResumePoint | None = None
    lost_until_step: int = 0
    """Steps up to here were already trained by an earlier attempt and lost: they count as replayed."""
    rewinds: list[Rewind] = []
    """Divergences gone back from: they shift rows and lower rates of later steps."""
    usage_before: UsageSeconds = UsageSeconds()
    """Seconds of all earlier attempts, also of those that were killed after their last checkpoint."""
    pod_started: float | None = None
    """``time.monotonic()``, one clock for the whole machine, when the supervisor started: usage ``starting`` counts from here."""
    output_dir: Path
    """Checkpoints are saved to ``<output_dir>/checkpoint-<step>``, the final weights to ``<output_dir>/final``."""
    best_dir: Path | None = None
    """Local copy of the best checkpoint so far, when it is not under ``output_dir`` (fetched from the store on resume)."""
    metrics_file: Path
    """Rank 0 appends one JSON line per optimizer step (:class:`finetune_trainer.worker.recorder.StepRecord`)."""
    tensorboard_dir: Path
    tracker_secrets: dict[str, Path] = {}
    """Tracker type -> directory with its credentials."""
    pinned: Pinned


# --- worker -> supervisor ---


class Hello(ContractModel):
    """First message of a worker."""

    type: Literal["hello"] = "hello"
    rank: int
    local_rank: int
    pid: int


class Phase(ContractModel):
    """Heartbeat: what the rank does and a counter that moves while it makes headway."""

    type: Literal["phase"] = "phase"
    phase: TrainerPhase
    counter: int = 0


class StepReport(ContractModel):
    """After each optimizer step (rank 0). Loss and gradient norm only every ``logging.steps``, when they are read from the device."""

    type: Literal["step"] = "step"
    step: int
    total_steps: int
    epoch: float
    loss: float | None = None
    grad_norm: float | None = None
    learning_rate: float | None = None
    tokens_per_second: float | None = None
    step_seconds: float | None = None
    tokens_seen: int | None = None
    gpu_memory_bytes: int | None = None
    """Most memory this rank had allocated at once; None on CPU."""
    mfu: float | None = None
    """Model FLOPs utilization, 0-1; None where the GPU's peak is not known."""
    metrics: dict[str, float] | None = None
    """Numbers of the method, where they have just been read."""
    replayed: bool = False


class Evaluated(ContractModel):
    """An evaluation ended (rank 0)."""

    type: Literal["evaluated"] = "evaluated"
    step: int
    metrics: dict[str, float]
    best: BestCheckpoint | None = None
    seconds: float = 0.0


class Used(ContractModel):
    """Where the seconds went (rank 0): at most once a second, and when the use changes."""

    type: Literal["used"] = "used"
    usage: UsageSeconds
    """Summed over all attempts."""
    until: float
    """``time.monotonic()``, one clock for the whole machine, up to which they count."""


class Facts(ContractModel):
    """Things found out: dtype, strategy, trainableParameters, totalParameters, effectiveBatchSize, warmupSteps, totalSteps, ..."""

    type: Literal["facts"] = "facts"
    facts: dict[str, str]
    pinned: Pinned | None = None
    """Rank 0 of the first attempt: what later attempts must find again."""
    missing_parts: int | None = None
    """Parts of ``training.backend: optimized`` that cannot be had; None with another backend."""


class Warned(ContractModel):
    """A warning condition; the last message of a type wins, an empty one clears it."""

    type: Literal["warning"] = "warning"
    condition: str
    message: str


class Saved(ContractModel):
    """A complete local checkpoint of this pod.

    Sent by local rank 0 after the barrier of all ranks that follows a save; answered by :class:`Staged`.

    Files of one rank (see :func:`finetune_trainer.store.staging.rank_of`) belong to that rank's pod, everything else to pod 0.
    """

    type: Literal["saved"] = "saved"
    step: int
    total_steps: int
    epoch: float
    directory: Path
    trigger: Trigger
    is_best: bool = False
    """This step is the best so far: the supervisor neither drops nor rotates it."""
    best: BestCheckpoint | None = None
    early_stopping: EarlyStoppingState = EarlyStoppingState()
    evaluation_due: bool = False
    metrics: dict[str, float] = {}
    steady_until: int | None = None
    """As in the manifest."""
    usage: UsageSeconds = UsageSeconds()
    """Summed over all attempts."""
    seconds: float = 0.0
    """From the end of the step until all ranks had written their files."""
    waited: float = 0.0
    """How much of it training waited."""


class StopAgreed(ContractModel):
    """All ranks agreed to stop at ``step``. A ``saved`` with trigger pause, stop or signal follows if there is something to save."""

    type: Literal["stop_agreed"] = "stop_agreed"
    step: int
    will_save: bool


class FinalSaved(ContractModel):
    """The final adapter or model lies in ``directory`` (rank 0)."""

    type: Literal["final"] = "final"
    step: int
    directory: Path
    kind: Literal["lora", "full"]
    source: Literal["best", "last"]
    early_stopped: bool = False
    metrics: dict[str, float] = {}
    usage: UsageSeconds = UsageSeconds()


class Failed(ContractModel):
    """Why this rank is about to exit non-zero. ``PeerLost`` when a collective failed because a peer went away."""

    type: Literal["failed"] = "failed"
    failure_class: FailureClass
    message: str
    step: int | None = None
    steady_until: int | None = None
    """Checkpoints after this step are not worth going back to; None: the last one is."""


# --- supervisor -> worker ---


class Staged(ContractModel):
    """The saved checkpoint is hard-linked aside: training may go on."""

    type: Literal["staged"] = "staged"
    step: int


class Stop(ContractModel):
    """Save and stop at the next agreed step."""

    type: Literal["stop"] = "stop"
    trigger: Literal["pause", "stop", "signal"]


class SaveNow(ContractModel):
    """Save at the next agreed step and go on."""

    type: Literal["save"] = "save"


WorkerMessage = Annotated[
    Hello | Phase | StepReport | Evaluated | Used | Facts | Warned | Saved | StopAgreed | FinalSaved | Failed, Field(discriminator="type")
]
SupervisorMessage = Annotated[Staged | Stop | SaveNow, Field(discriminator="type")]
WORKER_MESSAGES: TypeAdapter[WorkerMessage] = TypeAdapter(WorkerMessage)
SUPERVISOR_MESSAGES: TypeAdapter[SupervisorMessage] = TypeAdapter(SupervisorMessage)

"""What a preflight says beside passed or not: ``result`` of its termination message."""

from __future__ import annotations

from typing import Literal

from finetune_api.contract.base import ContractModel


class EnvironmentFacts(ContractModel):
    """Whether the trainer image can train this job."""

    is_ready: bool
    reason: str
    """One word for the condition EnvironmentReady."""
    message: str
    """Versions, or what is missing and the remedy."""


class TokenFacts(ContractModel):
    """Whether the hub takes the job's token for one."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    """One word for the condition TokenValid."""
    message: str


class DatasetFacts(ContractModel):
    """What the dataset looks like, before anything is trained on it. Rows count as they would be trained."""

    format: str
    """How rows are read; several sources are joined by commas."""
    examples: int
    """Usable rows that were looked at."""
    is_whole: bool
    """False: there are more rows than were looked at."""
    eval_examples: int | None = None
    """Rows of evalUri."""
    skipped: int = 0
    """Malformed rows that are left out."""
    token_rows: int = 0
    """Rows that were tokenised for the numbers below; 0 when the tokenizer could not be had."""
    tokens_p50: int = 0
    """Half of these rows have at most this many tokens."""
    tokens_p95: int = 0
    """95 % of these rows have at most this many tokens."""
    tokens_max: int = 0
    """Tokens of the longest of these rows."""
    truncated_percent: float = 0.0
    """Share of these rows that training.maxSeqLength cuts."""


class MemoryFacts(ContractModel):
    """What the training will need of one GPU."""

    parameters: int
    """Parameters of the base model."""
    trainable_parameters: int
    """Parameters that are trained."""
    target_modules: str = ""
    """Names of the modules of the language part that the adapter sits on, separated by commas."""
    sequence_tokens: int | None = None
    """Tokens of the longest sequence that was reckoned with: that of the rows that were counted, within training.maxSeqLength."""
    strategy: str
    """How it will be trained; what auto comes to."""
    quantization: Literal["none", "4bit"]
    """4bit: QLoRA."""
    terms: dict[str, int]
    """Bytes by term."""
    total_bytes: int
    """Their sum."""
    gpu_bytes: int | None = None
    """Memory of the GPU (resources.gpuMemory)."""
    pod_bytes: int | None = None
    """Main memory one pod needs with a strategy that keeps state there (zero2_offload, zero3_offload); requested of each pod where
    resources.memory is not set."""
    reason: str
    """Why it will be trained in this way."""


class TrainingFacts(ContractModel):
    """How long the training will be, and what it will leave."""

    steps: int
    """Optimizer steps."""
    stop_by: Literal["steps", "epochs"]
    """What ends the training: training.maxSteps or training.epochs."""
    checkpoints: int | None = None
    """Checkpoints it will write by steps or epochs, the last step's among them. None: the number of rows would have to be known."""
    checkpoint_bytes: int | None = None
    """Size of one checkpoint to resume from: what is trained and the optimizer's state. None: the model could not be looked at."""
    kept_bytes: int | None = None
    """Size of all that checkpoint.keepLast keeps to resume from, on a pod's disk and in the store."""
    store_bytes: int | None = None
    """Size of all checkpoints in the store at the end: keepLast of them to resume from, up to keepLastRemote their weights alone."""
    disk_bytes: int | None = None
    """Disk one pod needs at least: checkpoints, the one that is written among them, and weights, unless they are mounted or on
    cache.claimName."""


class CheckpointFacts(ContractModel):
    """How long a checkpoint will take to be complete in the store, before one is."""

    size_bytes: int
    """Bytes of one checkpoint to resume from, over all ranks."""
    upload_bytes_per_second: int
    """How fast the store took a file of a few MB from one pod."""
    save_seconds: float
    """Seconds to write a pod's share to a disk that takes 500 MB per second."""
    upload_seconds: float
    """Seconds to upload it at the measured speed."""


class PreflightResult(ContractModel):
    """Facts for ``status.estimate`` and the conditions."""

    environment: EnvironmentFacts | None = None
    token: TokenFacts | None = None
    dataset: DatasetFacts | None = None
    memory: MemoryFacts | None = None
    training: TrainingFacts | None = None
    checkpoint: CheckpointFacts | None = None
    warnings: dict[str, str] = {}
    """Condition type -> message."""

"""Layout of a job's objects in the store, and the documents that make a checkpoint exist.

All keys are relative to ``RunConfig.store.uri``::

    pinned.json                                    facts frozen by the first attempt
    attempts/<n>.json                              claimed by create-if-absent; attempts order time
    a<n>/checkpoint-<step>/<plain Trainer files>
    a<n>/checkpoint-<step>/part-<pod>-of-<pods>.json   written last by each pod
    a<n>/checkpoint-<step>/manifest.json           the union of all parts; only with it does the checkpoint exist
    prepared/<key>/...                             rows ready for training, keyed by content
    metrics/attempt-<n>.jsonl                      every optimizer step
    logs/attempt-<n>/pod-<i>.log
    heartbeats/<n>.json                            how far the attempt got and what it used, a few seconds old
    final/...                                      the final adapter or model, final/manifest.json last
    final/merged/... final/gguf/*.gguf             what an export made of it; final/export.json lists what is complete
    final/samples.json                             answers of the final model to prompts of the data
    lineage.json samples.json prompts.json tensorboard/...
"""

from __future__ import annotations

import re
from typing import Literal

from finetune_api.contract.base import ContractModel

MANIFEST = "manifest.json"
PINNED = "pinned.json"
LINEAGE = "lineage.json"
SAMPLES = "samples.json"
"""Five raw rows of the training data (V-03)."""
PROMPTS = "prompts.json"
"""The prompts of those rows, and of rows of the evaluation data, as the model sees them."""
FINAL_PREFIX = "final"
LOG_PREFIX = "logs/"
EXPORTS = "final/export.json"
ANSWERS = "final/samples.json"

Trigger = Literal["steps", "epoch", "interval", "pause", "stop", "signal", "command", "final"]


def attempt_key(attempt: int) -> str:
    """Key of the claim of an attempt."""
    return f"attempts/{attempt}.json"


def attempt_number(key: str) -> int | None:
    """Number in an attempt key, None for any other key."""
    match = re.fullmatch(r"attempts/([1-9][0-9]*)\.json", key)
    return int(match[1]) if match else None


def checkpoint_prefix(attempt: int, step: int) -> str:
    """Folder of a checkpoint, without a trailing slash."""
    return f"a{attempt}/checkpoint-{step}"


def parse_checkpoint_prefix(key: str) -> tuple[int, int] | None:
    """(attempt, step) of a key inside a checkpoint folder, None for any other key."""
    match = re.match(r"a([1-9][0-9]*)/checkpoint-([0-9]+)(?:/|$)", key)
    return (int(match[1]), int(match[2])) if match else None


def part_name(pod: int, pods: int) -> str:
    """File name of a pod's part of a checkpoint."""
    return f"part-{pod}-of-{pods}.json"


def metrics_key(attempt: int) -> str:
    """Key of the per-step metrics of an attempt (JSON lines)."""
    return f"metrics/attempt-{attempt}.jsonl"


def log_key(attempt: int, pod: int) -> str:
    """Key of the archived log of a pod in an attempt."""
    return f"{LOG_PREFIX}attempt-{attempt}/pod-{pod}.log"


def parse_log_key(key: str) -> tuple[int, int] | None:
    """(attempt, pod) of the key of a log, None for any other key."""
    match = re.fullmatch(rf"{LOG_PREFIX}attempt-([1-9][0-9]*)/pod-([0-9]+)\.log", key)
    return (int(match[1]), int(match[2])) if match else None


def prepared_prefix(key: str) -> str:
    """Folder of prepared rows for a content key."""
    return f"prepared/{key}"


class CheckpointRef(ContractModel):
    """Names a checkpoint of this job, or by ``uri`` one from elsewhere."""

    attempt: int
    step: int
    uri: str | None = None
    """Set for a checkpoint outside the job's own prefix."""


class AttemptRecord(ContractModel):
    """Claim of an attempt: one start of the rank group. Created if absent, never rewritten."""

    contract_version: int
    attempt: int
    run: int
    pod_uid: str
    pod_name: str
    node: str
    image: str | None = None
    started_at: str
    """RFC 3339, UTC."""
    parent: CheckpointRef | None = None
    """Checkpoint this attempt started from; None = from scratch."""
    resume_from: str | None = None
    """``checkpoint.resumeFrom`` as it stood: the same wish is carried out once, a new one starts a new branch."""
    world_size: int


class StoredFile(ContractModel):
    """A file of a checkpoint."""

    path: str
    """Relative to the checkpoint folder."""
    size: int
    sha256: str


class Part(ContractModel):
    """Files one pod uploaded for a checkpoint."""

    contract_version: int
    attempt: int
    step: int
    pod: int
    pods: int
    files: list[StoredFile]


class BestCheckpoint(ContractModel):
    """Best evaluation so far."""

    step: int
    attempt: int
    metric: str
    value: float


class EarlyStoppingState(ContractModel):
    """Early stopping, carried across attempts."""

    best_value: float | None = None
    evaluations_without_gain: int = 0


class UsageSeconds(ContractModel):
    """Wall seconds of the rank group by use, summed over attempts. GPU seconds = these x GPUs.

    Monotonic clocks of pod 0, so that a wall clock that jumps changes nothing. Every moment from the start of pod 0 to its end belongs to
    exactly one use, also those of attempts that were killed (up to the last heartbeat in the store); no value ever falls. Time between
    attempts, and so a pause, is in none of them.
    """

    starting: float = 0.0
    """From pod start to the first optimizer step."""
    productive: float = 0.0
    """Optimizer steps."""
    checkpointing: float = 0.0
    """Training waited for a save, or had ended and its last checkpoint or result was uploaded and held."""
    replayed: float = 0.0
    """Steps trained again because they were lost."""
    evaluating: float = 0.0

    @property
    def total(self) -> float:
        """All of them: how long the group was at work."""
        return self.starting + self.productive + self.checkpointing + self.replayed + self.evaluating


MAX_REWINDS = 2
"""How often a job goes back from a divergence."""


class Rewind(ContractModel):
    """A divergence the training went back from. What it changes is a function of the step, so that a resumed run does the same."""

    step: int
    """Optimizer step gone back to; both changes hold for all steps after it."""
    diverged_step: int
    """Where loss, gradient or weights were no longer finite, or it was clear that the loss had risen."""
    skipped: int
    """Optimizer steps' worth of rows that are left out."""
    rate_factor: float = 0.5
    """Learning rates are multiplied with it."""


class Manifest(ContractModel):
    """Makes a checkpoint exist. Written last, create-if-absent."""

    contract_version: int
    attempt: int
    step: int
    total_steps: int
    epoch: float
    created_at: str
    trigger: Trigger
    kind: Literal["lora", "full"]
    strategy: str
    world_size: int
    pods: int
    global_batch: int
    """batchSize x gradAccumSteps x world size: must stay equal on resume."""
    parent: CheckpointRef | None = None
    """Checkpoint the attempt started from."""
    resumable: bool = True
    """False once optimizer state was dropped (weights only)."""
    files: list[StoredFile]
    best: BestCheckpoint | None = None
    early_stopping: EarlyStoppingState = EarlyStoppingState()
    evaluation_due: bool = False
    """An evaluation fell on this step and was skipped because of a stop: run it first on resume."""
    metrics: dict[str, float] = {}
    """Last loss, eval_loss, ... at this step."""
    steady_until: int | None = None
    """Last step up to which the training loss is known not to have begun to rise; None where that is not judged."""
    usage: UsageSeconds = UsageSeconds()
    rewinds: list[Rewind] = []
    """In force when it was written, oldest first: a resumed run needs them to train the same rows at the same rates."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class PreparedManifest(ContractModel):
    """Makes prepared rows exist: written last."""

    contract_version: int
    key: str
    """Digest of source contents, tokenizer, template and every preparation parameter."""
    files: list[StoredFile]
    train_rows: int
    eval_rows: int
    dataset_digest: str
    truncated_prompts: int = 0
    truncated_rows: int = 0
    skipped_rows: int = 0
    tokens: dict[str, float] = {}
    """p50, p95, max tokens per row."""


class Pinned(ContractModel):
    """Facts the first attempt froze; later attempts use them or refuse by name."""

    contract_version: int
    model_revision: str | None = None
    """Commit of a hub model, else a digest of its file list."""
    tokenizer_digest: str | None = None
    dataset_digest: str | None = None
    prepared_key: str | None = None
    dtype: str | None = None
    strategy: str | None = None
    quantization: str | None = None
    """none or 4bit."""
    global_batch: int | None = None
    image: str | None = None
    companions: dict[str, str] = {}
    """Spec field -> commit or digest of a model beside the trained one (reference, reward model)."""
    versions: dict[str, str] = {}


class FinalManifest(ContractModel):
    """Makes the final adapter or model exist: ``final/manifest.json``."""

    contract_version: int
    kind: Literal["lora", "full"]
    step: int
    attempt: int
    source: Literal["best", "last"]
    files: list[StoredFile]
    metrics: dict[str, float] = {}


class SamplePrompt(ContractModel):
    """A prompt of the data and what the data says to it."""

    split: Literal["train", "eval"]
    prompt: str
    """Text with its special tokens, as the model sees it."""
    expected: str


class Exported(ContractModel):
    """Another form of the final result."""

    type: Literal["merged", "gguf"]
    name: str = ""
    """Number format of a GGUF file."""
    prefix: str
    """Folder below the store's URI."""
    files: list[StoredFile]
    max_delta: float | None = None
    """Largest difference of its logits to the final weights', read back in a fresh process."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class ExportManifest(ContractModel):
    """What is complete of an export: ``final/export.json``, rewritten whenever something is done."""

    contract_version: int
    source: str
    """sha256 of the final manifest all of it was made from."""
    exported: list[Exported] = []

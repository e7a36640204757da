"""What a preflight finds out about a job, as its status shows it: the contract's facts, within the bounds of a status."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_api.contract.preflight import CheckpointFacts, DatasetFacts, MemoryFacts, TrainingFacts
from finetune_api.models.status_base import Short, StatusModel, Text


class DatasetEstimate(DatasetFacts, StatusModel):
    """What preflight found in the dataset."""

    format: Short
    """How rows are read; several sources are joined by commas."""
    is_whole: bool = True
    """False: there are more rows than were looked at."""


class MemoryEstimate(MemoryFacts, StatusModel):
    """Memory of one GPU, from config.json and the headers of the weights alone."""

    strategy: Short
    """How it will be trained; what auto comes to."""
    terms: dict[Annotated[str, StringConstraints(max_length=16)], int] = Field(default={}, max_length=8)
    """Bytes of weights, adapter, gradients, optimizer, activations, logits, overhead; none where it is 0."""
    target_modules: Short = ""
    """Names of the modules of the language part that the adapter sits on, separated by commas."""
    reason: Text = ""
    """Why it will be trained in this way."""


class TrainingEstimate(TrainingFacts, StatusModel):
    """How long the training will be, and what it will leave. It is about all rows as they were found; training may leave some out."""


class CheckpointEstimate(CheckpointFacts, StatusModel):
    """How long a checkpoint will take, judged against pausePolicy.noticeSeconds until the first one is measured."""


class CostEstimate(StatusModel):
    """What the job will cost in all, what it has cost so far included; made before each start of a run with a price."""

    low: Short
    """If all goes smoothly."""
    high: Short
    """With headroom for what varies, and never more than limits.maxGpuHours lets it cost."""
    currency: Short
    """Of the GpuType's price."""
    training_seconds: int | None = None
    """Seconds of training that are left, as far as they can be reckoned. Unset: high follows from limits.maxGpuHours alone."""
    balance_after: Short | None = None
    """What is left of the Budget at worst: its balance without what other jobs have reserved, less high. Unset: there is no Budget."""


class Estimate(StatusModel):
    """What is known before a GPU is asked for."""

    dataset: DatasetEstimate | None = None
    """What preflight found in the dataset."""
    memory: MemoryEstimate | None = None
    """What the training will need of one GPU; not on CPU, and not for models whose files have no headers."""
    training: TrainingEstimate | None = None
    """Steps and checkpoints; not where the number of rows decides and is not known."""
    checkpoint: CheckpointEstimate | None = None
    """Size and time of a checkpoint; not for models whose files have no headers."""
    cost: CostEstimate | None = None
    """What the job will cost; not without a price."""
    quota: int | None = None
    """Checkpoints that the job will have written in all after its next run, those so far included: what it asks of the Budget's
    checkpointQuota. Unset: there is none."""

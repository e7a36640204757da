"""What a preflight finds out about a job, as its status shows it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from finetune_api.models.status_base import Short, StatusModel, Text


class DatasetEstimate(StatusModel):
    """What preflight found in the dataset."""

    format: Short
    """How rows are read; several sources are joined by commas."""
    examples: int
    """Usable rows that were looked at."""
    is_whole: bool = True
    """False: there are more rows than were looked at."""
    eval_examples: int | None = None
    """Rows of evalUri."""
    skipped: int = 0
    """Malformed rows that are left out."""
    token_rows: int = 0
    """Rows that were tokenised for the numbers below."""
    tokens_p50: int = 0
    """Half of these rows have at most this many tokens."""
    tokens_p95: int = 0
    """95 % of these rows have at most this many tokens."""
    tokens_max: int = 0
    """Tokens of the longest of these rows."""
    truncated_percent: float = 0.0
    """Share of these rows that training.maxSeqLength cuts."""


class MemoryEstimate(StatusModel):
    """Memory of one GPU, from config.json and the headers of the weights alone."""

    parameters: int
    """Parameters of the base model."""
    trainable_parameters: int
    """Parameters that are trained."""
    strategy: Short
    """How it will be trained; what auto comes to."""
    quantization: Literal["none", "4bit"]
    """4bit: QLoRA."""
    terms: dict[Annotated[str, StringConstraints(max_length=16)], int] = Field(default={}, max_length=8)
    """Bytes of weights, adapter, gradients, optimizer, activations, logits, overhead; none where it is 0."""
    total_bytes: int
    """Their sum."""
    gpu_bytes: int | None = None
    """Memory of the GPU (resources.gpuMemory)."""
    reason: Text = ""
    """Why it will be trained in this way."""


class Estimate(StatusModel):
    """What is known before a GPU is asked for."""

    dataset: DatasetEstimate | None = None
    """What preflight found in the dataset."""
    memory: MemoryEstimate | None = None
    """What the training will need of one GPU; not on CPU, and not for models whose files have no headers."""

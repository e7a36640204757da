"""What a preflight says beside passed or not: ``result`` of its termination message."""

from __future__ import annotations

from typing import Literal

from finetune_api.contract.base import ContractModel


class DatasetFacts(ContractModel):
    """What the dataset looks like, before anything is trained on it. Rows count as they would be trained."""

    format: str
    """How rows were read; several sources are joined by commas."""
    examples: int
    """Usable rows that were seen."""
    is_whole: bool
    """False: more rows exist than were looked at."""
    eval_examples: int | None = None
    skipped: int = 0
    """Malformed rows (``dataset.onError: skip``)."""
    token_rows: int = 0
    """Rows that were tokenised for the numbers below; 0 when the tokenizer could not be had."""
    tokens_p50: int = 0
    tokens_p95: int = 0
    tokens_max: int = 0
    truncated_percent: float = 0.0
    """Share of those rows that training.maxSeqLength cuts."""


class MemoryFacts(ContractModel):
    """What the training will need of one GPU."""

    parameters: int
    trainable_parameters: int
    strategy: str
    quantization: Literal["none", "4bit"]
    terms: dict[str, int]
    """Bytes by term."""
    total_bytes: int
    gpu_bytes: int | None = None
    """``resources.gpuMemory``."""
    reason: str


class PreflightResult(ContractModel):
    """Facts for ``status.estimate`` and the conditions."""

    dataset: DatasetFacts | None = None
    memory: MemoryFacts | None = None
    warnings: dict[str, str] = {}
    """Condition type -> message."""

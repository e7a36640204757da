"""What is recommended for a dataset of some size and a GPU of some memory: tables of the requirements, as sentences."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from finetune_api.length import LONG
from finetune_api.models.dataset import DatasetTokens
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.quantities import number_of

SINGLE_GPU: Final = "SingleGpuRecommended"
"""Condition: more ranks than so few rows of so small a model are worth."""
FEW_ROWS, MANY_ROWS = 1_000, 10_000
SMALL_MODEL: Final = 8_500_000_000
"""Parameters up to which a model counts as one of "about 7B"; those of that name have up to 8.3."""
GIB: Final = 2**30
SHORTEST, STEP = 128, 8
"""training.maxSeqLength: at least, and in steps of."""
NEEDLESS: Final = 2
"""Times the longest row from which on sequences count as needlessly long."""
CUT_NOWHERE: Final = frozenset({"pretrain", "grpo"})
"""Methods whose rows training.maxSeqLength does not cut: long texts become several rows; rows are prompts."""


class Band(NamedTuple):
    """A recommended range; both ends belong to it."""

    low: float
    high: float

    def holds(self, value: float) -> bool:
        """Whether a value is recommended."""
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


def epochs_band(rows: int) -> Band:
    """Epochs for a number of rows (F-19)."""
    return Band(3, 10) if rows < FEW_ROWS else Band(2, 5) if rows <= MANY_ROWS else Band(1, 3)


def eval_ratio_band(rows: int) -> Band | None:
    """Share of rows to evaluate on (E-20); nothing is recommended for numbers between."""
    return Band(0.1, 0.2) if rows < FEW_ROWS else Band(0.05, 0.1) if rows > MANY_ROWS else None


def batch_band(gpu_bytes: int) -> Band | None:
    """Rows per step and GPU of a LoRA training (F-03); None below 4 GiB, for which there is no recommendation."""
    found = None
    for least, band in ((4, Band(1, 2)), (8, Band(2, 4)), (16, Band(4, 8)), (24, Band(8, 16))):
        if gpu_bytes >= least * GIB:
            found = band
    return found


def unusual_for_rows(spec: FineTuneJobSpec, rows: int) -> str:
    """What is unusual for so many rows, a sentence each; empty if nothing is. Epochs count only where they end the training."""
    found = []
    epochs, ratio = epochs_band(rows), eval_ratio_band(rows)
    decides = spec.training.max_steps <= 0
    if decides and spec.method != "grpo" and not epochs.holds(spec.training.epochs):
        found.append(f"training.epochs {spec.training.epochs}: {epochs} are recommended for {rows} rows.")
    if ratio is not None and spec.dataset.eval_ratio > 0 and not ratio.holds(spec.dataset.eval_ratio):
        found.append(f"dataset.evalRatio {spec.dataset.eval_ratio:g}: {ratio} is recommended for {rows} rows.")
    return " ".join(found)


def single_gpu(*, rows: int, parameters: int, ranks: int) -> str:
    """Why one rank would do (L-04, AC-50); empty if it would not, or there is but one."""
    if ranks == 1 or rows > FEW_ROWS or parameters > SMALL_MODEL:
        return ""
    return (
        f"{rows} rows and {parameters / 1e9:.1f} billion parameters train on {ranks} GPUs: for so few rows one GPU is almost always right "
        "(replicas 1, resources.gpusPerReplica 1)"
    )


def batch_suggestion(spec: FineTuneJobSpec) -> str:
    """The usual batch for the GPU the job names, where it says nothing of what the job's own lengths need; empty where none is known."""
    memory = spec.resources.gpu_memory
    if spec.adapter.type != "lora" or memory is None:
        return ""
    band = batch_band(int(number_of(memory)))
    return f"usual training.batchSize with LoRA on {memory}: {band}" if band is not None else ""


def holding(tokens: int) -> int:
    """The least training.maxSeqLength that a row of so many tokens fits in (F-07)."""
    return max(SHORTEST, math.ceil(tokens / STEP) * STEP)


def share_cut(spec: FineTuneJobSpec, tokens: DatasetTokens) -> str:
    """Which of the rows counted training.maxSeqLength cuts (F-08), as far as three percentiles tell; empty where it cuts none by design."""
    limit = spec.training.max_seq_length
    if spec.method is None or spec.method in CUT_NOWHERE or limit == 0:
        return ""
    for bound, share in (
        (tokens.p50, "about half of them or more"),
        (tokens.p95, "about 5 % to half of them"),
        (tokens.max, "about 5 % of them or less"),
    ):
        if limit < bound:
            return share
    return "none of them"


def unsuited_length(spec: FineTuneJobSpec, tokens: DatasetTokens) -> str:
    """Why training.maxSeqLength does not suit the rows that were counted, and what would (F-08); empty if it does, or cuts no row."""
    limit, fits, most = spec.training.max_seq_length, holding(tokens.max), holding(tokens.p95)
    if spec.method is None or spec.method in CUT_NOWHERE:
        return ""
    if 0 < limit < tokens.max:
        all_rows = f"{fits} holds all rows that were counted{' (with training.longContext)' if fits > LONG else ''}"
        nearly_all = f", {most} 95 % of them" if limit < most < fits else ""
        return f"training.maxSeqLength {limit} cuts rows: {all_rows}{nearly_all}."
    if spec.dataset.packing or 0 < limit <= NEEDLESS * fits:
        return ""
    shown = "0, the model's context," if limit == 0 else f"{limit}"
    return (
        f"training.maxSeqLength {shown} is more than rows have: {fits} holds all that were counted, "
        "and bounds the GPU memory that other rows may take."
    )

"""How long a training is, in optimizer steps, and how many checkpoints it leaves: arithmetic on the resolved spec alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal

from finetune_api.models.spec import FineTuneJobSpec

LONG: Final = 8192
"""Tokens; longer sequences are asked for with ``training.longContext``."""
StopBy = Literal["steps", "epochs"]
"""The field that ends a training: ``training.maxSteps`` or ``training.epochs``."""


@dataclass(frozen=True)
class Pace:
    """How a method takes up rows."""

    global_batch: int
    """Rows of an optimizer step over all ranks; with grpo answers."""
    rows_per_step: int
    """Rows of the data an optimizer step takes up: prompts, with grpo."""
    repeats: int = 1
    """Steps that learn from the same rows, one after the other."""
    fills: bool = False
    """Every step has all its rows: ranks and answers are compared with each other."""
    evaluation_unit: int = 1
    """An evaluation batch must be a multiple of it."""

    def steps_per_epoch(self, rows: int) -> int:
        """Optimizer steps of an epoch; the last one may have fewer rows."""
        return max(math.ceil(rows / self.rows_per_step), 1) * self.repeats


@dataclass(frozen=True)
class Length:
    """How long a training is."""

    steps: int
    """Optimizer steps."""
    stop_by: StopBy
    checkpoints: int | None
    """Checkpoints it writes by steps or epochs, the last step's among them; None where epochs count and the rows are not known."""


def pace_of(spec: FineTuneJobSpec, world_size: int) -> Pace:
    """Return the pace of the job's method on ``world_size`` ranks.

    Raises :class:`ValueError` when the answers of a step do not make whole groups.
    """
    training = spec.training
    global_batch = training.batch_size * training.grad_accum_steps * world_size
    if spec.method in ("sft", "pretrain"):
        return Pace(global_batch, global_batch)
    if spec.grpo is None:
        # The mismatched pairs of kto are made within a batch, so one row alone has none.
        return Pace(global_batch, global_batch, fills=True, evaluation_unit=2 if spec.method == "kto" else 1)
    answers = spec.grpo.num_generations
    if global_batch % answers != 0:
        raise ValueError(
            f"grpo.numGenerations: {answers} does not divide the {global_batch} answers of a step (batchSize x gradAccumSteps x ranks)"
        )
    return Pace(global_batch, global_batch // answers, repeats=spec.grpo.num_iterations, fills=True, evaluation_unit=answers)


def longest_sequence(spec: FineTuneJobSpec, context: int | None) -> int | None:
    """Return the tokens a sequence has at most: ``training.maxSeqLength``, for 0 the model's context within what is allowed (X09).

    ``context``: tokens the model was made for; None where nobody knows, which leaves 0 with ``training.longContext`` unbounded: None.
    """
    training = spec.training
    if training.max_seq_length > 0:
        return training.max_seq_length
    return context if training.long_context else min(context or LONG, LONG)


def padded_length(spec: FineTuneJobSpec, limit: int | None, longest: int | None) -> int | None:
    """Return the tokens of the longest sequence in a batch, to which shorter ones are padded: the longest row within ``limit``.

    Packed rows fill the limit, and so may what a model writes (grpo). None: neither limit nor rows are known.
    """
    if spec.dataset.packing or spec.method in (None, "grpo"):
        return limit
    return min((tokens for tokens in (limit, longest) if tokens is not None), default=None)


def total_steps(by_epochs: int, max_steps: int, mode: Literal["override", "cap"]) -> tuple[int, StopBy]:
    """Return the number of optimizer steps and which field decided it (F-22); ``max_steps`` <= 0 leaves it to the epochs."""
    if max_steps <= 0 or (mode == "cap" and by_epochs <= max_steps):
        return by_epochs, "epochs"
    return max_steps, "steps"


def evaluation_count(rows: int, ratio: float) -> int:
    """Rows that are split off for evaluation: ``round(rows x ratio)``, at least 1 and at most ``rows - 1``; none for ratio 0 (E-16)."""
    return min(max(int(rows * ratio + 0.5), 1), rows - 1) if ratio > 0 and rows > 1 else 0


def training_count(total: int, share: float | None, left: int) -> int:
    """Rows of ``left`` that train: ``round(total x share)``, at least 1; all where no share is asked for (E-17)."""
    return left if share is None else min(max(int(total * share + 0.5), 1), left)


def trained_rows(spec: FineTuneJobSpec, rows: int) -> int | None:
    """Rows that train out of so many usable ones.

    None where that takes their tokens or their sources: rows that are packed, and sources that do not count once.
    """
    dataset = spec.dataset
    if dataset.packing or any(part.weight not in (None, 1) for part in dataset.parts):
        return None
    return training_count(rows, dataset.train_ratio, rows - evaluation_count(rows, dataset.eval_ratio))


def length_of(spec: FineTuneJobSpec, *, rows: int | None, world_size: int) -> Length | None:
    """Work out how long a training is (O-15, F-22).

    Args:
        spec: the job, every value resolved.
        rows: rows that train, packed ones counted as the sequences they make; None where nobody knows.
        world_size: ranks.

    Returns None where that depends on the number of rows and it is not known.
    Raises :class:`ValueError` when the answers of a step do not make whole groups.
    """
    training, pace = spec.training, pace_of(spec, world_size)
    if rows is None and (training.max_steps <= 0 or training.max_steps_mode == "cap"):
        return None
    per_epoch = pace.steps_per_epoch(rows) if rows is not None else None
    steps, stop_by = total_steps((per_epoch or 0) * training.epochs, training.max_steps, training.max_steps_mode)
    every = {"no": 0, "steps": spec.checkpoint.steps, "epoch": per_epoch}[spec.checkpoint.strategy]
    # The last step is saved whether it is due or not.
    checkpoints = None if every is None else math.ceil(steps / every) if every > 0 else 0
    return Length(steps, stop_by, checkpoints)

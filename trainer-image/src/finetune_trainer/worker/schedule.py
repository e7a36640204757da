"""How many steps a run has, and what is due at a step: pure arithmetic on the spec."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from finetune_api.contract.store import Trigger
from finetune_api.length import Pace, StopBy, pace_of, total_steps
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.errors import configuration_error


def job_pace(spec: FineTuneJobSpec, world_size: int) -> Pace:
    """Return the pace of the job's method.

    Raises :class:`TrainerError` (ConfigurationError) when the answers of a step do not make whole groups.
    """
    try:
        return pace_of(spec, world_size)
    except ValueError as error:
        raise configuration_error(str(error)) from error


@dataclass(frozen=True)
class Schedule:
    """The course of a run in optimizer steps. A step uses ``global_batch`` rows; the last one of an epoch may use fewer."""

    total_steps: int
    steps_per_epoch: int
    warmup_steps: int
    global_batch: int
    stop_by: StopBy
    evaluate_every: int
    """0 = not during training."""
    save_every: int
    """0 = no periodic saves by steps."""
    save_trigger: Literal["steps", "epoch"]
    evaluate_at_end: bool
    save_at_end: bool

    def epoch(self, step: int) -> float:
        """Epochs done after ``step`` steps."""
        return step / self.steps_per_epoch

    def is_last(self, step: int) -> bool:
        """Nothing is left to train after ``step``."""
        return step >= self.total_steps

    def is_evaluation_due(self, step: int) -> bool:
        """An evaluation belongs to ``step``: a periodic one, or the final one."""
        periodic = self.evaluate_every > 0 and step % self.evaluate_every == 0
        return periodic or (self.evaluate_at_end and self.is_last(step))

    def save_due(self, step: int) -> Trigger | None:
        """Why a checkpoint belongs to ``step``, apart from commands and minutes."""
        if self.save_at_end and self.is_last(step):
            return "final"
        return self.save_trigger if self.save_every > 0 and step % self.save_every == 0 else None


def make_schedule(spec: FineTuneJobSpec, *, train_rows: int, eval_rows: int, world_size: int) -> Schedule:
    """Work out the schedule (F-05, F-06, F-21 to F-27, R-01, S-01, AC-73, AC-74).

    ``train_rows`` counts sequences as prepared (packed ones count once). Steps win over epochs unless ``maxStepsMode`` is cap; warm-up
    steps win over the ratio. All results depend on the global batch alone, never on how it is spread over ranks.
    """
    training, pace = spec.training, job_pace(spec, world_size)
    per_epoch = pace.steps_per_epoch(train_rows)
    by_epochs = per_epoch * training.epochs
    total, stop_by = total_steps(by_epochs, training.max_steps, training.max_steps_mode)
    evaluates = eval_rows > 0
    every = {"no": 0, "steps": spec.evaluation.steps, "epoch": per_epoch}[spec.evaluation.strategy]
    saves = {"no": 0, "steps": spec.checkpoint.steps, "epoch": per_epoch}[spec.checkpoint.strategy]
    return Schedule(
        total_steps=total,
        steps_per_epoch=per_epoch,
        warmup_steps=warmup_steps(spec, total),
        global_batch=pace.global_batch,
        stop_by=stop_by,
        evaluate_every=every if evaluates else 0,
        save_every=saves,
        save_trigger="epoch" if spec.checkpoint.strategy == "epoch" else "steps",
        evaluate_at_end=evaluates and spec.evaluation.final,
        save_at_end=spec.checkpoint.strategy != "no",
    )


def warmup_steps(spec: FineTuneJobSpec, total: int) -> int:
    """Steps in which the learning rate rises from 0; none for a constant rate."""
    training = spec.training
    if training.lr_scheduler == "constant":
        return 0
    if training.warmup_steps > 0:
        return min(training.warmup_steps, total)
    # Rounded first: 30 x 0.1 is 3.0000000000000004, and that is no reason for a fourth step.
    return math.ceil(round(total * training.warmup_ratio, 6))

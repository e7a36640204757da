"""Overfitting, as the curves show it: the training loss falls while the evaluation loss rises (F-20)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Final

CONDITION: Final = "OverfittingSuspected"
RISES: Final = 3
"""Evaluations in a row that must rise; one or two are noise."""


def suspicion(history: Sequence[Mapping[str, float]]) -> str:
    """What to say after the newest evaluation; "" while nothing is suspected.

    ``history`` is the Trainer's ``log_history``, which every checkpoint carries, so that the answer is the same however often a run was
    resumed. The training loss of an evaluation is the mean of what was logged since the one before.
    """
    evaluations = [entry for entry in history if "eval_loss" in entry][-RISES - 1 :]
    if len(evaluations) <= RISES:
        return ""
    rises = all(before["eval_loss"] < after["eval_loss"] for before, after in pairwise(evaluations))
    trained = [_mean_loss(history, before["step"], after["step"]) for before, after in pairwise(evaluations)]
    falls = all(before is not None and after is not None and after < before for before, after in pairwise(trained))
    if not (rises and falls):
        return ""
    lowest = min((entry for entry in history if "eval_loss" in entry), key=lambda entry: entry["eval_loss"])
    newest = evaluations[-1]
    return (
        f"the evaluation loss rose {RISES} times in a row, to {newest['eval_loss']:.4g} at step {newest['step']:.0f}, while the training "
        f"loss fell; it was lowest, {lowest['eval_loss']:.4g}, at step {lowest['step']:.0f}: fewer epochs, or earlyStopping.patience"
    )


def _mean_loss(history: Sequence[Mapping[str, float]], after: float, until: float) -> float | None:
    losses = [entry["loss"] for entry in history if "loss" in entry and after < entry["step"] <= until]
    return fmean(losses) if losses else None

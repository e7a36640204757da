"""A training loss that rises (F-13): told as a warning while it may be something else, a divergence once it is clear.

Steps are judged in blocks of :data:`BLOCK`. A block stands at the lower of its losses' mean and median, the best block so far at the
higher of its own, so that neither a few wild rows nor data of two kinds are taken for a rise:

- Two blocks in a row above 1.5 times the best one, and by more than 0.5: the loss rises (condition :data:`CONDITION`).
- Three blocks in a row above 2 times the best one, and by more than 3, the last of them not a tenth lower than the first (a loss that
  falls again is left to recover): the training has diverged. A perplexity twenty times the best one is no property of the data.

So nothing is said of the first 100 steps, and no run ends before step 200. Only losses that are a mean over tokens are judged (``sft``,
``pretrain``): those of preference and reinforcement methods may rise while all is well. A stream's rows may change in kind: there a
rise is told and ends nothing.
"""

from __future__ import annotations

from statistics import fmean, median
from typing import Final

from finetune_api.advice import LEARNING_RATES, PRETRAIN_RATES
from finetune_api.contract.base import ContractModel
from finetune_api.models.spec import FineTuneJobSpec

CONDITION: Final = "LossRising"
BLOCK: Final = 50
"""Optimizer steps."""
RISEN_BLOCKS: Final = 2
RISEN_FACTOR: Final = 1.5
RISEN_MARGIN: Final = 0.5
"""Nats per token."""
DIVERGED_BLOCKS: Final = 3
DIVERGED_FACTOR: Final = 2.0
DIVERGED_MARGIN: Final = 3.0
"""Nats per token."""
RECOVERING: Final = 0.9
"""Of the first of the high blocks: a last one below it falls again."""


class Trend(ContractModel):
    """What is known of the course of the loss; in every checkpoint, so that a resumed run judges as one that never stopped."""

    losses: list[float] = []
    """Of the steps of the open block."""
    best: float | None = None
    """Level of the best block."""
    high: list[float] = []
    """Levels of the blocks since the loss began to rise, the last :data:`DIVERGED_BLOCKS` of them."""
    steady_until: int | None = None
    """Last step of the last block that was not high."""

    def after(self, step: int, loss: float) -> Trend:
        """Return the trend with one more step."""
        losses = [*self.losses, loss]
        if len(losses) < BLOCK:
            return self.model_copy(update={"losses": losses})
        low, high = sorted((fmean(losses), median(losses)))
        if self.best is not None and low > max(RISEN_FACTOR * self.best, self.best + RISEN_MARGIN):
            return self.model_copy(update={"losses": [], "high": [*self.high, low][-DIVERGED_BLOCKS:]})
        best = high if self.best is None else min(self.best, high)
        return Trend(best=best, steady_until=step)

    def forgiving(self) -> Trend:
        """Return the trend after rates or schedule were changed by hand: what rose before counts no more, the best level does."""
        return self.model_copy(update={"losses": [], "high": []})

    @property
    def has_risen(self) -> bool:
        """Whether to warn."""
        return len(self.high) >= RISEN_BLOCKS

    @property
    def has_diverged(self) -> bool:
        """Whether it is clear."""
        if self.best is None or len(self.high) < DIVERGED_BLOCKS:
            return False
        limit = max(DIVERGED_FACTOR * self.best, self.best + DIVERGED_MARGIN)
        return min(self.high) > limit and self.high[-1] >= RECOVERING * self.high[0]


def is_judged(spec: FineTuneJobSpec) -> bool:
    """Whether the method's loss is one whose rise says something."""
    return spec.method in ("sft", "pretrain")


def describe(trend: Trend, spec: FineTuneJobSpec) -> str:
    """Say how far the loss has risen and what helps; "" while it has not."""
    if not trend.has_risen:
        return ""
    low, high = PRETRAIN_RATES if spec.method == "pretrain" else LEARNING_RATES[spec.adapter.type]
    kind = "pretrain" if spec.method == "pretrain" else f"adapter.type {spec.adapter.type}"
    return (
        f"the training loss rises: it stands at {trend.high[-1]:.4g}, its best {BLOCK} steps at {trend.best:.4g}, and it was steady until "
        f"step {trend.steady_until}: lower training.learningRate ({spec.training.learning_rate:g}; usual with {kind} are {low:g} to "
        f"{high:g}), lengthen the warm-up, or go back by checkpoint.resumeFrom to a checkpoint up to that step"
    )

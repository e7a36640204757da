"""Best evaluation and early stopping: pure state, carried in every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from finetune_api.contract.store import BestCheckpoint, EarlyStoppingState


class Goal(NamedTuple):
    """What makes one evaluation better than another."""

    metric: str
    higher_is_better: bool = False


LOWEST_LOSS: Final = Goal("eval_loss")
HIGHEST_REWARD: Final = Goal("eval_reward", higher_is_better=True)
"""The loss of policy gradients says nothing about the answers (OP-06)."""


@dataclass(frozen=True)
class Ledger:
    """What evaluations have shown so far."""

    best: BestCheckpoint | None = None
    early_stopping: EarlyStoppingState = field(default_factory=EarlyStoppingState)

    def after(self, value: float, *, step: int, attempt: int, threshold: float, goal: Goal = LOWEST_LOSS) -> Ledger:
        """Return the ledger after an evaluation.

        As the Trainer does it (OP-06): a gain counts for early stopping when it exceeds ``threshold`` against the best of *all*
        evaluations so far, and any gain at all makes a new best.
        """
        best = self.best.value if self.best is not None else None
        gain = None if best is None else (value - best if goal.higher_is_better else best - value)
        gained = gain is None or gain > threshold
        count = 0 if gained else self.early_stopping.evaluations_without_gain + 1
        is_best = gain is None or gain > 0
        highest_or_lowest = value if is_best else best
        return Ledger(
            best=BestCheckpoint(step=step, attempt=attempt, metric=goal.metric, value=value) if is_best else self.best,
            early_stopping=EarlyStoppingState(best_value=highest_or_lowest, evaluations_without_gain=count),
        )

    def is_exhausted(self, patience: int) -> bool:
        """Early stopping ends the run; 0 turns it off."""
        return patience > 0 and self.early_stopping.evaluations_without_gain >= patience

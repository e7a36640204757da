"""Best evaluation and early stopping: pure state, carried in every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_api.contract.store import BestCheckpoint, EarlyStoppingState

METRIC = "eval_loss"


@dataclass(frozen=True)
class Ledger:
    """What evaluations have shown so far; lower :data:`METRIC` is better."""

    best: BestCheckpoint | None = None
    early_stopping: EarlyStoppingState = field(default_factory=EarlyStoppingState)

    def after(self, value: float, *, step: int, attempt: int, threshold: float) -> Ledger:
        """Return the ledger after an evaluation.

        As the Trainer does it (OP-06): a gain counts for early stopping when it exceeds ``threshold`` against the best of *all*
        evaluations so far, and any gain at all makes a new best.
        """
        best = self.best.value if self.best is not None else None
        gained = best is None or best - value > threshold
        count = 0 if gained else self.early_stopping.evaluations_without_gain + 1
        is_best = best is None or value < best
        lowest = value if is_best else best
        return Ledger(
            best=BestCheckpoint(step=step, attempt=attempt, metric=METRIC, value=value) if is_best else self.best,
            early_stopping=EarlyStoppingState(best_value=lowest, evaluations_without_gain=count),
        )

    def is_exhausted(self, patience: int) -> bool:
        """Early stopping ends the run; 0 turns it off."""
        return patience > 0 and self.early_stopping.evaluations_without_gain >= patience

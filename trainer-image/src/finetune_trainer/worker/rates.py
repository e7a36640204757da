"""Learning rates after a divergence: the schedule's own, multiplied by what the rewinds say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from finetune_api.contract.store import Rewind
from finetune_trainer.rewinds import rate_factor


def lower_rates(scheduler: torch.optim.lr_scheduler.LambdaLR, rewinds: Sequence[Rewind]) -> None:
    """Multiply the rates of a new schedule; still functions of the step alone, so that a resumed run gets the same."""
    if not rewinds:
        return

    def lowered(shape: Callable[[int], float]) -> Callable[[int], float]:
        # The schedule is asked for the rate after n steps, which is that of step n + 1.
        return lambda done: shape(done) * rate_factor(done + 1, rewinds)

    scheduler.lr_lambdas = [lowered(shape) for shape in scheduler.lr_lambdas]
    rates = [base * shape(scheduler.last_epoch) for base, shape in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler.load_state_dict({**scheduler.state_dict(), "_last_lr": rates})

"""What going back from a divergence does to later steps: pure functions of the step, the same for supervisor and workers."""

from __future__ import annotations

import math
from collections.abc import Sequence

from finetune_api.contract.store import MAX_REWINDS, Rewind

CONDITION = "LossRewound"


def data_position(step: int, rewinds: Sequence[Rewind]) -> int:
    """Return the position in the run's order of rows, counted in steps from 1, that optimizer step ``step`` (from 1) trains."""
    return step + sum(rewind.skipped for rewind in rewinds if step > rewind.step)


def rate_factor(step: int, rewinds: Sequence[Rewind]) -> float:
    """Return what the schedule's learning rate of optimizer step ``step`` (from 1) is multiplied with."""
    return math.prod(rewind.rate_factor for rewind in rewinds if step > rewind.step)


def after_divergence(rewinds: Sequence[Rewind], *, step: int, diverged_step: int) -> list[Rewind]:
    """Return the rewinds of an attempt that starts at ``step`` after one with ``rewinds`` diverged; none is added beyond the limit."""
    if len(rewinds) >= MAX_REWINDS or diverged_step <= step:
        return list(rewinds)
    # So that the first step after it trains what follows the diverged one.
    skipped = data_position(diverged_step, rewinds) + 1 - data_position(step + 1, rewinds)
    return [*rewinds, Rewind(step=step, diverged_step=diverged_step, skipped=skipped)]


def describe(rewinds: Sequence[Rewind]) -> str:
    """Say what was done about each divergence; empty without any."""
    return " ".join(
        f"The training diverged by step {rewind.diverged_step}: went back to step {rewind.step}, left out the rows of "
        f"{rewind.skipped} steps, learning rate x {rewind.rate_factor:g} ({number} of {MAX_REWINDS})."
        for number, rewind in enumerate(rewinds, start=1)
    )

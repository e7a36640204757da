"""Whether and when the next run follows a failure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from finetune_api.contract.failures import REACTIONS, FailureClass, Retry
from finetune_api.models.status import AttemptStatus, FineTuneJobStatus, RetryStatus
from finetune_operator.plan.conditions import format_time

OUTCOME_PAUSED = "Paused"
"""Outcome of an attempt that ended because it was asked to."""


class RetryPolicy(NamedTuple):
    """``spec.retry``, and the longest wait."""

    limit: int
    backoff_seconds: float
    max_backoff_seconds: float


def with_reset_budget(status: FineTuneJobStatus) -> RetryStatus:
    """The budget after a look at the checkpoints: a new one since the last failure sets it back."""
    latest = status.checkpoints.latest
    if latest is None or latest.step == status.retry.checkpoint_step:
        return status.retry
    return RetryStatus(used=0, checkpoint_step=latest.step, next_start_at=status.retry.next_start_at)


def after_failure(status: FineTuneJobStatus, failure_class: FailureClass, policy: RetryPolicy, now: datetime) -> RetryStatus | None:
    """The budget with the next start in it, or None: no further run."""
    budget = with_reset_budget(status)
    reaction = REACTIONS[failure_class].retry
    if reaction is Retry.NEVER or (reaction is Retry.COUNTED and budget.used >= policy.limit):
        return None
    if reaction is Retry.COUNTED:
        wait = backoff(policy, budget.used)
        budget = budget.model_copy(update={"used": budget.used + 1})
    else:
        repeated = _fruitless(status.attempts)
        wait = backoff(policy, repeated - 2) if repeated > 1 else 0.0
    return budget.model_copy(update={"next_start_at": format_time(now + timedelta(seconds=wait))})


def backoff(policy: RetryPolicy, exponent: int) -> float:
    """Seconds to wait: doubled with each try before, bounded."""
    return min(policy.backoff_seconds * 2.0 ** min(exponent, 16), policy.max_backoff_seconds)


def count_disruptions(attempts: Sequence[AttemptStatus]) -> int:
    """How many of the attempts a drain, a preemption or a dead node ended."""
    return sum(attempt.outcome in (FailureClass.NODE_LOST, FailureClass.PREEMPTED) for attempt in attempts)


def _fruitless(attempts: list[AttemptStatus]) -> int:
    """How many attempts in a row, up to the one just ended, gained no step: disruptions are free, yet must not spin."""
    count = 0
    for attempt in reversed(attempts):
        gained = attempt.to_step is not None and attempt.to_step > attempt.from_step
        if gained or attempt.outcome == OUTCOME_PAUSED:
            break
        count += 1
    return count

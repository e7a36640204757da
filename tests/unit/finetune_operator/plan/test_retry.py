from __future__ import annotations

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.models.status import AttemptStatus, CheckpointsStatus, CheckpointStatus, FineTuneJobStatus, RetryStatus
from finetune_operator.plan.observed import parse_time
from finetune_operator.plan.retry import RetryPolicy, after_failure, with_reset_budget
from tests.support.operator_values import NOW

POLICY = RetryPolicy(limit=3, backoff_seconds=10, max_backoff_seconds=300)


def attempt(gained: int = 0, outcome: str = "NodeLost") -> AttemptStatus:
    return AttemptStatus(run=1, reason="Created", started_at="2026-11-21T08:00:00Z", from_step=10, to_step=10 + gained, outcome=outcome)


def wait(status: FineTuneJobStatus, failure_class: FailureClass, policy: RetryPolicy = POLICY) -> float | None:
    budget = after_failure(status, failure_class, policy, NOW)
    if budget is None:
        return None
    at = parse_time(budget.next_start_at)
    assert at is not None
    return (at - NOW).total_seconds()


@pytest.mark.parametrize(("used", "expected"), [(0, 10), (1, 20), (2, 40), (3, None)])
def test_counted_failures(used: int, expected: float | None) -> None:
    """retry.limit and retry.backoffSeconds: doubled each time, then the end."""
    assert wait(FineTuneJobStatus(retry=RetryStatus(used=used)), FailureClass.UNKNOWN) == expected


def test_the_wait_is_bounded() -> None:
    status = FineTuneJobStatus(retry=RetryStatus(used=40))
    assert wait(status, FailureClass.UNKNOWN, RetryPolicy(limit=100, backoff_seconds=60, max_backoff_seconds=300)) == 300


def test_user_errors_are_never_retried() -> None:
    assert wait(FineTuneJobStatus(), FailureClass.DATA) is None


@pytest.mark.parametrize(
    ("attempts", "expected"),
    [
        ([], 0),
        ([attempt(gained=5)], 0),
        ([attempt()], 0),
        ([attempt(), attempt()], 10),
        ([attempt(), attempt(), attempt()], 20),
        ([attempt(), attempt(), attempt(gained=1)], 0),
        ([attempt(), attempt(outcome="Paused"), attempt()], 0),
    ],
)
def test_disruptions_are_free_and_at_once_unless_they_gain_nothing_again_and_again(attempts: list[AttemptStatus], expected: float) -> None:
    status = FineTuneJobStatus(attempts=attempts, retry=RetryStatus(used=3))
    assert wait(status, FailureClass.NODE_LOST) == expected


def test_a_new_checkpoint_sets_the_budget_back_also_on_another_branch() -> None:
    """A restart from an older checkpoint makes new ones with lower steps: they count as well."""

    def status(step: int) -> FineTuneJobStatus:
        latest = CheckpointStatus(step=step, attempt=2, uri="s3://b/x", created_at="2026-11-21T08:00:00Z", trigger="steps")
        return FineTuneJobStatus(retry=RetryStatus(used=2, checkpoint_step=500), checkpoints=CheckpointsStatus(latest=latest))

    assert with_reset_budget(status(500)).used == 2
    assert with_reset_budget(status(600)) == RetryStatus(used=0, checkpoint_step=600)
    assert with_reset_budget(status(300)) == RetryStatus(used=0, checkpoint_step=300)

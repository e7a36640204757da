"""Which events of Budgets and jobs are worth a look, who is woken by an answer, and what metrics show."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from finetune_operator.budget_metrics import BudgetCollector
from finetune_operator.cluster.budgets import BudgetKey
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed_budgets import ASK_DELAY_SECONDS, USE_DELAY_SECONDS, BudgetFeed
from finetune_operator.plan.funds import Used

BUDGET, JOB = BudgetKey("team"), JobKey("team", "demo")


class Ear:
    """A feed with one waiting job, and what it said."""

    def __init__(self) -> None:
        self.marked: list[tuple[object, float]] = []
        self.feed = BudgetFeed(lambda key, delay: self.marked.append((key, delay)), lambda _key: None, waiting=lambda _ns: [(JOB, "uid")])

    def heard(self) -> list[tuple[object, float]]:
        heard, self.marked = self.marked, []
        return heard


def budget(generation: int = 1, **status: Any) -> dict[str, Any]:
    metadata = {"namespace": "team", "name": "default", "uid": "b", "generation": generation}
    return {"metadata": metadata, "spec": {"currency": "USD", "credits": []}, "status": status}


def granted(limit: str | None) -> dict[str, Any]:
    return {"shares": {"uid": {"name": "demo", "run": 1, "generation": 1, **({"limit": limit} if limit else {})}}}


def job(phase: str, **usage: str) -> dict[str, Any]:
    status = {"phase": phase, "run": 1, "usage": usage, "estimate": {"cost": {"high": "1.0000"}}}
    return {"metadata": {"namespace": "team", "name": "demo", "uid": "uid"}, "status": status}


@pytest.fixture
def ear() -> Ear:
    """A feed that knows a Budget."""
    ear = Ear()
    ear.feed.budget_event(None, budget())
    assert ear.heard() == [(BUDGET, 0.0), (JOB, 0.0)]
    return ear


def test_our_own_writes_wake_only_whom_they_concern(ear: Ear) -> None:
    """O-08: a grant wakes its job; amounts alone wake nobody; a credit wakes the Budget and all that wait."""
    ear.feed.budget_event("MODIFIED", budget(balance="1.0000"))
    assert ear.heard() == []
    ear.feed.budget_event("MODIFIED", budget(**granted("1.0000")))
    assert ear.heard() == [(JOB, 0.0)]
    ear.feed.budget_event("MODIFIED", budget(2, **granted("1.0000")))
    assert ear.heard() == [(BUDGET, 0.0), (JOB, 0.0)]


def test_what_jobs_ask_is_answered_before_what_they_use_is_noted(ear: Ear) -> None:
    """O-09."""
    ear.feed.job_event("MODIFIED", job("AwaitingBalance"))
    assert ear.heard() == [(BUDGET, ASK_DELAY_SECONDS)]
    ear.feed.job_event("MODIFIED", job("AwaitingBalance"))
    assert ear.heard() == []
    ear.feed.job_event("MODIFIED", job("AwaitingBalance", rateSeconds="10"))
    assert ear.heard() == [(BUDGET, USE_DELAY_SECONDS)]


def test_an_answer_that_came_before_its_question_is_not_lost(ear: Ear) -> None:
    """The watches of jobs and Budgets are two: either may be ahead."""
    ear.feed.budget_event("MODIFIED", budget(**granted("1.0000")))
    ear.heard()
    ear.feed.job_event("MODIFIED", job("AwaitingBalance"))
    assert (JOB, 0.0) in ear.heard()


def test_a_deleted_job_says_what_it_has_used(ear: Ear) -> None:
    """O-13: kept until the Budget has written it down."""
    ear.feed.budget_event("MODIFIED", budget(**granted("1.0000")))
    ear.feed.job_event("DELETED", job("Training", rateSeconds="3600"))
    assert ear.feed.farewells(BUDGET) == {"uid": Used("3600", 0)}
    ear.feed.budget_event("MODIFIED", budget(closedRateSeconds="3600"))
    assert ear.feed.farewells(BUDGET) == {}


def test_a_job_without_a_price_asks_for_checkpoints(ear: Ear) -> None:
    """O-14: what it asks, writes, and had written when it was deleted is heard as money is; one that asks for nothing is not."""
    unpriced = job("AwaitingBalance") | {"status": {"phase": "AwaitingBalance", "run": 0, "estimate": {"quota": 4}}}
    ear.feed.job_event("MODIFIED", unpriced | {"status": {"phase": "Pending", "checkpoints": {"saved": 1}}})
    assert ear.heard() == []
    ear.feed.job_event("MODIFIED", unpriced)
    assert ear.heard() == [(BUDGET, ASK_DELAY_SECONDS)]
    ear.feed.job_event("MODIFIED", unpriced | {"status": {**unpriced["status"], "checkpoints": {"saved": 2}}})
    assert ear.heard() == [(BUDGET, USE_DELAY_SECONDS)]
    ear.feed.budget_event("MODIFIED", budget(shares={"uid": {"name": "demo", "run": 1, "generation": 1, "checkpointLimit": 4}}))
    assert ear.heard() == [(JOB, 0.0)], "a grant wakes its job"
    ear.feed.job_event("DELETED", unpriced | {"status": {**unpriced["status"], "checkpoints": {"saved": 3}}})
    assert ear.feed.farewells(BUDGET) == {"uid": Used("0", 3)}


def test_a_budget_that_is_gone_lets_its_jobs_go_on(ear: Ear) -> None:
    ear.feed.budget_event("DELETED", budget())
    assert (ear.heard(), len(ear.feed)) == ([(JOB, 0.0)], 0)


def test_metrics_show_a_budget_while_there_is_one(ear: Ear) -> None:
    """O-09, AA-03: balance, reserved and settled, of the leader alone."""
    registry, leads = CollectorRegistry(), [True]
    registry.register(BudgetCollector(ear.feed, is_leader=lambda: leads[0]))
    ear.feed.budget_event("MODIFIED", budget(balance="8.5000", reserved="1.2500", settled="1.5000"))
    page = generate_latest(registry).decode()
    assert 'finetune_budget_balance{currency="USD",finetune_namespace="team"} 8.5' in page
    assert 'finetune_budget_reserved{currency="USD",finetune_namespace="team"} 1.25' in page
    assert 'finetune_budget_settled{currency="USD",finetune_namespace="team"} 1.5' in page
    assert "finetune_budget_checkpoint_quota{" not in page, "without a quota there is none to show"
    limited = budget(balance="8.5000", checkpoints=3)
    ear.feed.budget_event("MODIFIED", limited | {"spec": {**limited["spec"], "checkpointQuota": 20}})
    page = generate_latest(registry).decode()
    assert 'finetune_budget_checkpoint_quota{finetune_namespace="team"} 20.0' in page
    assert 'finetune_budget_checkpoints{finetune_namespace="team"} 3.0' in page
    leads[0] = False
    assert b"finetune_budget" not in generate_latest(registry)

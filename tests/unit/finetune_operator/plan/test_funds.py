"""One Budget and many jobs, whatever they do: nothing is promised twice, nothing is forgotten, and looking again changes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.models.budget import BudgetStatus
from finetune_operator.plan.funds import BudgetObserved, plan_budget
from finetune_operator.plan.observed import BudgetObject, JobObject
from tests.support.fake_api import START

RATE = Decimal("36.00")
INTERVAL = RATE / 60
"""What a GPU costs in a metering interval."""


@dataclass
class Actor:
    """A job, as its status tells of it."""

    number: int
    phase: str = "AwaitingBalance"
    run: int = 0
    is_open: bool = False
    seconds: int = 0
    high: Decimal = Decimal("3.0000")
    saved: int = 0
    quota: int = 2

    @property
    def uid(self) -> str:
        return f"job-{self.number}"

    def seen(self) -> JobObject:
        usage = {"rateSeconds": f"{self.seconds * RATE}", "hourlyRate": f"{RATE}", "currency": "USD"}
        attempt = {"run": self.run, "reason": "Created", "startedAt": "2026-01-01T00:00:00Z"}
        ended = {} if self.is_open else {"endedAt": "2026-01-01T00:01:00Z"}
        status: dict[str, Any] = {
            "phase": self.phase, "run": self.run, "observedGeneration": 1, "gpus": 1, "usage": usage,
            "estimate": {"cost": {"low": "0", "high": f"{self.high:.4f}", "currency": "USD"}, "quota": self.quota},
            "checkpoints": {"saved": self.saved},
            "attempts": [attempt | ended] if self.run else [],
        }  # fmt: skip
        created = (START + timedelta(seconds=self.number)).strftime("%Y-%m-%dT%H:%M:%SZ")
        metadata = {
            "name": self.uid, "namespace": "team", "uid": self.uid, "generation": 1, "resourceVersion": "1", "creationTimestamp": created
        }  # fmt: skip
        return JobObject.from_manifest({"metadata": metadata, "spec": {}, "status": status})


def budget_of(credit: Decimal, quota: int, status: BudgetStatus) -> BudgetObject:
    spec = {"currency": "USD", "checkpointQuota": quota, "credits": [{"amount": f"{credit}", "at": "2026-01-01T00:00:00Z"}]}
    return BudgetObject(
        namespace="team", name="default", uid="b", generation=1, resource_version="1", annotations={}, spec=spec, status=status
    )


class Life:
    """A namespace: jobs act on what the Budget said last, as real ones do."""

    def __init__(self, credit: int, quota: int) -> None:
        self.credit, self.quota = Decimal(credit), quota
        self.status = BudgetStatus()
        self.actors = [Actor(number) for number in range(4)]
        self.used = Decimal(0)
        self.overrun = Decimal(0)
        self.written = 0
        self.over_quota = 0

    def look(self) -> None:
        before = Decimal(self.status.settled)
        self.status = self.plan()
        assert self.plan() == self.status, "looking again changes nothing"
        settled, reserved = Decimal(self.status.settled), Decimal(self.status.reserved)
        assert settled >= before, "what is charged never falls"
        assert settled == (self.used / 3600).quantize(Decimal("0.0001")), "it is what jobs have used, deleted ones too"
        assert reserved == 0 or settled + reserved <= self.credit + self.overrun, "nothing is promised twice"
        assert self.status.checkpoints == self.written, "each checkpoint counts once, those of deleted jobs too"
        assert self.status.checkpoints_reserved == 0 or (self.written + self.status.checkpoints_reserved <= self.quota + self.over_quota), (
            "no checkpoint is promised twice"
        )
        assert settled <= self.credit + len(self.actors) * INTERVAL

    def plan(self) -> BudgetStatus:
        jobs = [actor.seen() for actor in self.actors]
        return plan_budget(BudgetObserved(budget=budget_of(self.credit, self.quota, self.status), jobs=jobs), now=START)

    def act(self, actor: Actor, what: str) -> None:
        share = self.status.shares.get(actor.uid)
        granted = share is not None and share.limit is not None and share.run == actor.run + 1
        match what:
            case "start" if actor.phase == "AwaitingBalance" and granted:
                actor.phase, actor.run, actor.is_open = "Training", actor.run + 1, True
            case "use" if actor.is_open:
                assert share is not None
                left = (Decimal(share.limit or "0") * 3600 - actor.seconds * RATE) / RATE
                seconds = min(60, max(0, int(left) + 1))
                actor.seconds, self.used = actor.seconds + seconds, self.used + seconds * RATE
                if left < seconds:
                    self.overrun += RATE / 3600
                    actor.phase, actor.is_open = "Paused", False
            case "save" if actor.is_open:
                assert share is not None
                if actor.saved >= (share.checkpoint_limit or 0):
                    self.over_quota += 1
                    actor.phase, actor.is_open = "Paused", False
                actor.saved, self.written = actor.saved + 1, self.written + 1
            case "pause" | "fail" if actor.phase != "AwaitingBalance":
                actor.phase, actor.is_open = "Paused" if what == "pause" else "Failed", False
            case "ask" if actor.phase in ("Paused", "Failed"):
                actor.phase, actor.high = "AwaitingBalance", actor.seconds * RATE / 3600 + 3
                actor.quota = actor.saved + 2
            case "delete":
                self.look()
                self.actors.remove(actor)
            case _:
                pass


@given(
    credit=st.integers(1, 12),
    quota=st.integers(1, 12),
    acts=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from(["start", "start", "use", "use", "use", "use", "save", "save", "pause", "fail", "ask", "delete"]),
        ),
        max_size=60,
    ),
)
@settings(max_examples=50, deadline=None)
def test_nothing_is_promised_twice(credit: int, quota: int, acts: list[tuple[int, str]]) -> None:
    """AA-03, OP-08, O-13, O-14: with four jobs that start, use, save, pause, fail, ask again and go."""
    life = Life(credit, quota)
    life.look()
    for number, what in acts:
        actor = next((actor for actor in life.actors if actor.number == number), None)
        if actor is not None:
            life.act(actor, what)
        life.look()

"""Budgets: a job starts while the money of its namespace lasts, is paused when it is used up, and nothing is charged twice."""

from __future__ import annotations

from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_api.constants import API_VERSION, BUDGET_KIND
from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.termination import TerminationMessage
from finetune_api.lifecycle import may_follow
from finetune_api.models.budget import MAX_SHARES, BudgetStatus
from finetune_api.models.status import Phase
from finetune_api.pricing import Billing
from finetune_operator.cluster.budgets import BudgetKey
from finetune_operator.cluster.client import Client
from finetune_operator.plan.funds import Used
from finetune_operator.queue import RetryLater
from finetune_operator.reconcile_budget import BudgetReconciler
from tests.support.fake_api import Call, CrashError
from tests.support.operator_cluster import NAMESPACE, SETTINGS, FakeCluster, job_manifest
from tests.unit.finetune_operator.test_gpu_types import ENTRY

RATE = Decimal("0.01")
"""Cost of a GPU second: 36.00 an hour."""
PRICED = {**ENTRY, "hourlyRate": "36.00", "tflops": 1}
SPEC: dict[str, Any] = {
    "resources": {"device": "gpu", "gpuType": "h100"},
    "training": {"batchSize": 1, "gradAccumSteps": 1, "maxSeqLength": 1000},
}
PARAMETERS = 166_666_667
"""So many that a step of :data:`SPEC` takes a second."""


class FundedCluster(FakeCluster):
    """A namespace with a GpuType and a Budget; each look at the job is followed by one at the Budget."""

    def __init__(self, *amounts: str, headroom: float = 0.3, overhead: int = 0, **spec: Any) -> None:
        billing = Billing(overhead_seconds={"imagePull": overhead}, headroom=headroom, utilization=1.0)
        self.farewells: dict[str, Used] = {}
        super().__init__(SETTINGS.model_copy(update={"billing": billing}))
        entry = {"apiVersion": API_VERSION, "kind": "GpuType", "metadata": {"name": "h100"}, "spec": PRICED}
        self.api.add("gputypes", entry, namespace="")
        if amounts or spec:
            self.fund(*amounts, **spec)
        memory = {
            "parameters": PARAMETERS, "trainable_parameters": 1, "strategy": "none", "quantization": "none", "terms": {},
            "total_bytes": 1, "reason": "",
        }  # fmt: skip
        result: dict[str, object] = {"training": {"steps": 100, "stop_by": "steps"}, "memory": memory}
        said = TerminationMessage(contract_version=CONTRACT_VERSION, run=1, pod=0, exit_code=0, result=result)
        self.verb_exit["preflight"] = said

    def fund(self, *amounts: str, **spec: Any) -> None:
        given = [{"amount": amount, "at": f"2026-01-01T00:00:{number:02}Z"} for number, amount in enumerate(amounts)]
        manifest = {"apiVersion": API_VERSION, "kind": BUDGET_KIND, "metadata": {"name": "default", "namespace": NAMESPACE}}
        self.api.add("budgets", {**manifest, "spec": {"currency": "USD", "credits": given, **spec}})

    def top_up(self, amount: str) -> None:
        given = [*self.budget_manifest["spec"]["credits"], {"amount": amount, "at": "2026-02-01T00:00:00Z"}]
        self.api.change("budgets", NAMESPACE, "default", {"spec": {"credits": given}})

    @property
    def budget_manifest(self) -> dict[str, Any]:
        found = self.api.get("budgets", "default")
        assert found is not None
        return found

    @property
    def budget(self) -> BudgetStatus:
        return BudgetStatus.model_validate(self.budget_manifest.get("status") or {})

    async def reconcile(self) -> None:
        await super().reconcile()
        await self.settle_budget()

    async def settle_budget(self) -> None:
        """One look at the Budget, by a process that knows nothing but what is stored."""
        reconciler = BudgetReconciler(Client(self.api), now=self.clock.now, farewells=lambda _key: self.farewells)
        try:
            await reconciler.reconcile(BudgetKey(NAMESPACE))
        except (RetryLater, CrashError):
            self.crashes += 1

    @property
    def charged(self) -> Decimal:
        return Decimal(self.budget.settled)


async def waits(cluster: FakeCluster, phase: str) -> None:
    await cluster.until(lambda: cluster.phase == phase)
    await cluster.settle()
    assert cluster.phase == phase
    assert cluster.status.run == 0, "no pod was made"


async def test_a_job_waits_for_what_it_may_cost() -> None:
    """AC-51, O-06, O-08: no pod below the upper estimate; after a top-up to it the job starts, and what it may cost is reserved."""
    cluster = FundedCluster("1.00")
    cluster.create(SPEC)
    await waits(cluster, "AwaitingBalance")
    cost = cluster.status.estimate.cost if cluster.status.estimate is not None else None
    assert cost is not None
    assert (cost.low, cost.high, cost.balance_after, cost.training_seconds) == ("1.0000", "1.3000", "-0.3000", 100)
    assert cluster.condition("BalanceSufficient") == ("False", "BalanceTooLow")
    assert cluster.condition("Ready") == ("True", "BalanceTooLow"), "GitOps does not hang on it"
    assert "topup 0.3000" in cluster.event("BalanceTooLow")
    cluster.top_up("0.30")
    await cluster.until(lambda: cluster.status.run == 1)
    assert (cluster.budget.balance, cluster.budget.reserved, cluster.budget.settled) == ("1.3000", "1.3000", "0.0000")
    assert cluster.condition("BalanceSufficient") == ("True", "Reserved")


@pytest.mark.parametrize(("credit", "starts"), [("3.00", False), ("3.04", True)])
async def test_the_numbers_of_the_requirement(credit: str, starts: bool) -> None:
    """AC-78, AC-53, O-01 to O-05: 3600 s of training and 600 s of overhead at 2.00 an hour come to 2.3333 up to 3.0333."""
    cluster = FundedCluster(credit, overhead=600)
    cluster.api.change("gputypes", "", "h100", {"spec": {**PRICED, "hourlyRate": "2.00"}})
    cluster.create({**SPEC, "training": {**SPEC["training"], "gradAccumSteps": 36}})
    await cluster.until(lambda: cluster.status.estimate is not None and cluster.status.estimate.cost is not None)
    await cluster.settle()
    cost = cluster.status.estimate.cost if cluster.status.estimate is not None else None
    assert cost is not None
    assert (cost.low, cost.high) == ("2.3333", "3.0333")
    assert (cluster.status.run == 1) is starts
    assert not starts or cost.balance_after == "0.0067"


async def test_two_jobs_do_not_spend_the_same_money() -> None:
    """AA-03, OP-08, AC-52: what the first may still cost is not there for the second; once it is over, within its range, the rest is."""
    cluster = FundedCluster("2.00")
    cluster.create(SPEC)
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    second = beside(cluster, "second")
    await waits(second, "AwaitingBalance")
    assert Decimal(cluster.budget.balance) - Decimal(cluster.budget.reserved) == Decimal("0.7000")
    await cluster.until(lambda: cluster.phase == "Succeeded", train=1)
    assert (cluster.budget.settled, cluster.budget.reserved) == ("1.0000", "0.0000")
    await second.settle()
    assert second.phase == "AwaitingBalance"
    cluster.top_up("0.30")
    await second.until(lambda: second.status.run == 1)
    assert len(cluster.budget.shares) == 2


def beside(cluster: FundedCluster, name: str, spec: dict[str, Any] = SPEC) -> FundedCluster:
    """Another job of the same namespace, looked at in turn with the first."""
    other = FundedCluster()
    other.api, other.clock, other.key = cluster.api, cluster.clock, type(cluster.key)(NAMESPACE, name)
    other.settings = cluster.settings
    other.new_operator()
    cluster.api.add("finetunejobs", job_manifest(name, spec))
    return other


async def test_a_job_without_an_estimate_needs_a_limit() -> None:
    """O-08: what cannot be reckoned is bounded by limits.maxGpuHours, at which the job is paused anyway."""
    cluster = FundedCluster("5.00")
    cluster.verb_exit.clear()
    cluster.create(SPEC)
    await waits(cluster, "Pending")
    assert cluster.status.reason == "CostUnknown"
    cluster.edit({"limits": {"maxGpuHours": 0.02}})
    await cluster.until(lambda: cluster.status.run == 1)
    assert cluster.budget.reserved == "0.7200"


async def test_a_price_in_another_currency_is_refused() -> None:
    """OP-21: amounts in two currencies cannot be compared."""
    cluster = FundedCluster("5.00", currency="EUR")
    cluster.create(SPEC)
    await waits(cluster, "Pending")
    assert cluster.status.reason == "CurrencyDiffers"


async def test_without_a_budget_there_is_only_metering() -> None:
    """X41: the estimate is shown, nothing is asked."""
    cluster = FundedCluster()
    cluster.create(SPEC)
    await cluster.until(lambda: cluster.status.run == 1)
    assert cluster.status.estimate is not None
    assert cluster.status.estimate.cost is not None
    assert cluster.status.estimate.cost.balance_after is None
    assert cluster.condition("BalanceSufficient") is None


async def test_approval() -> None:
    """O-07: a job above the rule waits for the request approve, which is for what it may cost; then the balance decides."""
    cluster = FundedCluster("1.00", approvalAbove="1.2999")
    cluster.create(SPEC)
    await waits(cluster, "AwaitingApproval")
    assert cluster.budget.reserved == "0.0000", "what nobody has approved takes nothing from others"
    assert "1.0000 to 1.3000 USD" in cluster.event("ApprovalNeeded")
    cluster.annotate(**{"finetune.dev/request": "approve/1"})
    await waits(cluster, "AwaitingBalance")
    assert cluster.status.approved_cost == "1.3000"
    cluster.top_up("0.30")
    await cluster.until(lambda: cluster.status.run == 1)
    cluster.annotate(**{"finetune.dev/request": "approve/2"})
    await cluster.until(lambda: "RequestIgnored" in cluster.story())


async def exhausted(cluster: FundedCluster) -> None:
    cluster.create(SPEC)
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    await cluster.settle()


async def test_the_balance_ends_a_run_with_a_checkpoint() -> None:
    """AC-55, AC-79, O-11, O-13: charged to the second it ran out, checkpoint, no pod; the pause is free; resume is refused."""
    cluster = FundedCluster("0.6667", headroom=0.0)
    cluster.verb_exit["preflight"] = cluster.verb_exit["preflight"].model_copy(
        update={"result": {**(cluster.verb_exit["preflight"].result or {}), "training": {"steps": 50, "stop_by": "steps"}}}
    )
    await exhausted(cluster)
    assert cluster.status.reason == "BalanceExhausted"
    assert cluster.status.hold is not None
    assert cluster.status.checkpoints.latest is not None
    assert not cluster.pods()
    assert Decimal("0.6667") <= cluster.charged <= Decimal("0.6667") + 3 * RATE
    assert cluster.budget.reserved == "0.0000"
    charged = cluster.charged
    cluster.clock.advance(3600)
    await cluster.settle()
    assert cluster.charged == charged
    cluster.annotate(**{"finetune.dev/request": "resume/1"})
    await cluster.settle()
    assert cluster.phase == "Paused"
    assert "topup" in cluster.event("RequestIgnored")


async def test_a_top_up_lets_it_go_on() -> None:
    """AC-56: from the checkpoint, and only new seconds are charged; a start that costs more than there is waits."""
    cluster = FundedCluster("0.50", headroom=0.0, approvalAbove="9")
    cluster.verb_exit["preflight"] = cluster.verb_exit["preflight"].model_copy(
        update={"result": {**(cluster.verb_exit["preflight"].result or {}), "training": {"steps": 50, "stop_by": "steps"}}}
    )
    await exhausted(cluster)
    step, charged = cluster.status.checkpoints.latest, cluster.charged
    assert step is not None
    cluster.top_up("1.00")
    cluster.annotate(**{"finetune.dev/request": "resume/1"})
    await cluster.until(lambda: cluster.phase == "Succeeded", train=1)
    assert cluster.charged == RATE * 100
    assert cluster.charged > charged
    assert cluster.status.attempts[-1].from_step == step.step


async def test_a_cancelled_job_is_settled() -> None:
    """AC-58, O-12: what it used stays charged, what it had reserved comes back."""
    cluster = FundedCluster("2.00")
    cluster.create(SPEC)
    await cluster.until(lambda: cluster.status.usage.productive_seconds >= 30, train=1)
    cluster.edit({"desiredState": "Cancelled"})
    await cluster.until(lambda: cluster.phase == "Cancelled", train=1)
    await cluster.settle()
    used = Decimal(str(cluster.status.usage.productive_seconds)) * RATE
    assert (cluster.charged, cluster.budget.reserved) == (used, "0.0000")


async def test_what_a_deleted_job_has_cost_stays() -> None:
    """O-13: its last use counts, and only once, whoever looks at the Budget afterwards."""
    cluster = FundedCluster("2.00")
    cluster.create(SPEC)
    await cluster.until(lambda: cluster.status.usage.productive_seconds >= 30, train=1)
    await cluster.settle_budget()
    uid, used = cluster.manifest["metadata"]["uid"], Decimal(cluster.status.usage.rate_seconds or "0")
    cluster.farewells[uid] = Used(str(used + 360))
    cluster.api.remove(("finetunejobs", NAMESPACE, cluster.key.name))
    for _ in range(3):
        await cluster.settle_budget()
    assert cluster.charged == ((used + 360) / 3600).quantize(Decimal("0.0001"))
    assert cluster.budget.shares == {}
    assert cluster.budget.reserved == "0.0000"


async def test_what_a_job_cost_before_there_was_a_budget_is_not_charged() -> None:
    """X41: a run that began without one goes on; its next start is the first that asks."""
    cluster = FundedCluster()
    cluster.create(SPEC)
    await cluster.until(lambda: cluster.status.usage.productive_seconds >= 20, train=1)
    cluster.fund("5.00")
    await cluster.until(lambda: cluster.status.usage.productive_seconds >= 40, train=1)
    assert cluster.charged == 0
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    before = Decimal(str(cluster.status.usage.productive_seconds)) * RATE
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Succeeded", train=1)
    assert cluster.charged == RATE * 100 - before


@given(
    credit=st.integers(30, 200),
    steps=st.lists(st.sampled_from(["go", "go", "go", "crash", "pause", "resume", "top up", "request", "later"]), min_size=5, max_size=40),
)
@settings(max_examples=25, deadline=None)
async def test_nothing_is_charged_twice_and_nothing_beyond_the_credit(credit: int, steps: list[str]) -> None:
    """O-13: whatever is done and wherever the operator dies, what is charged never falls, is what was used, and ends with the credit."""
    cluster = FundedCluster(str(Decimal(credit) / 100))
    crash_after = -1

    def fault(call: Call, moment: str) -> None:
        nonlocal crash_after
        if call.is_write and moment == "after" and crash_after >= 0:
            crash_after -= 1
            if crash_after < 0:
                raise CrashError

    cluster.api.fault = fault
    cluster.create(SPEC)
    charged, credited, requests = Decimal(0), Decimal(credit) / 100, 0
    for step in steps:
        match step:
            case "crash":
                crash_after = len(cluster.api.calls) % 4
            case "pause" | "resume":
                cluster.edit({"suspend": step == "pause"})
            case "top up":
                cluster.top_up("0.25")
                credited += Decimal("0.25")
            case "request":
                requests += 1
                cluster.annotate(**{"finetune.dev/request": f"resume/{requests}"})
            case "later":
                cluster.clock.advance(700)
            case _:
                assert step == "go"
        for _ in range(8):
            await cluster.reconcile()
            cluster.step()
            await cluster.train(1)
            cluster.clock.advance(1)
            assert cluster.charged >= charged
            charged = cluster.charged
            assert charged <= credited + 60 * RATE
            assert Decimal(cluster.budget.settled) + Decimal(cluster.budget.reserved) <= max(credited, charged)
    crash_after = -1
    await cluster.settle()
    phases = [Phase((m.get("status") or {}).get("phase", "Pending")) for plural, _, m in cluster.api.history if plural == "finetunejobs"]
    assert all(may_follow(before, after) for before, after in pairwise(phases)), phases
    used = Decimal(cluster.status.usage.rate_seconds or "0") / 3600
    assert cluster.charged == used.quantize(Decimal("0.0001"))


async def test_a_budget_has_room_for_so_many_jobs() -> None:
    """Design: a status is bounded; the job that finds no room says what makes some."""
    cluster = FundedCluster("5.00")
    shares = {f"other-{number}": {"name": f"job-{number}", "run": 1, "generation": 1} for number in range(MAX_SHARES)}
    cluster.create(SPEC)
    await cluster.until(lambda: cluster.phase == "Validating")
    cluster.api.change("budgets", NAMESPACE, "default", {"status": {"shares": shares}})
    await FakeCluster.reconcile(cluster)
    for _ in range(5):
        cluster.step()
        await FakeCluster.reconcile(cluster)
    assert (cluster.phase, cluster.condition("BalanceSufficient")) == ("AwaitingBalance", ("False", "TooManyJobs"))
    await cluster.until(lambda: cluster.status.run == 1)


UNPRICED: dict[str, Any] = {"resources": {"device": "gpu"}, "checkpoint": {"strategy": "steps", "steps": 10, "keepLast": 2}}


def limited(quota: int, checkpoints: int | None = 10) -> FundedCluster:
    """A namespace without money and with a quota; preflight estimates so many checkpoints."""
    cluster = FundedCluster()
    cluster.fund(checkpointQuota=quota)
    estimate_checkpoints(cluster, checkpoints)
    return cluster


def estimate_checkpoints(cluster: FundedCluster, checkpoints: int | None) -> None:
    training = {"steps": 100, "stop_by": "steps", "checkpoints": checkpoints}
    cluster.verb_exit["preflight"] = cluster.verb_exit["preflight"].model_copy(update={"result": {"training": training}})


async def trained(cluster: FundedCluster, phase: str, *, save_every: int = 10) -> None:
    """Train on until the job is in a phase and at rest."""
    await cluster.until(lambda: cluster.phase == phase, train=1, save_every=save_every)
    await cluster.settle()


async def test_a_job_waits_for_the_checkpoints_it_is_to_write() -> None:
    """O-14, O-15, AC-27: also one without a price; the sentence names quota, used, wanted and the fix; each checkpoint counts once."""
    cluster = limited(8)
    cluster.create(UNPRICED)
    await waits(cluster, "AwaitingBalance")
    assert cluster.condition("BalanceSufficient") == ("False", "QuotaTooLow")
    said = cluster.event("QuotaTooLow")
    for part in ("10 checkpoints more", "of the 8 of Budget", "0 are used", "8 are free", "checkpoint.steps", "topup --checkpoints 2"):
        assert part in said
    cluster.api.change("budgets", NAMESPACE, "default", {"spec": {"checkpointQuota": 10}})
    await cluster.until(lambda: cluster.status.run == 1)
    assert (cluster.budget.checkpoints, cluster.budget.checkpoints_reserved) == (0, 10)
    await trained(cluster, "Succeeded")
    assert cluster.status.checkpoints.saved == 10
    assert (cluster.budget.checkpoints, cluster.budget.checkpoints_reserved) == (10, 0)


async def test_the_end_of_the_quota_is_a_pause_with_a_checkpoint() -> None:
    """O-14: a job that writes more than was estimated goes on while the quota lasts; then it is paused, and a resume alone is refused."""
    cluster = limited(12, checkpoints=10)
    cluster.create(UNPRICED)
    await trained(cluster, "Paused", save_every=5)
    assert (cluster.status.reason, cluster.pods()) == ("BalanceExhausted", [])
    assert cluster.status.hold is not None
    assert "checkpointQuota" in cluster.status.hold.message
    assert 12 <= cluster.budget.checkpoints <= 13, "the pause saves what was trained"
    cluster.annotate(**{"finetune.dev/request": "resume/1"})
    await cluster.settle()
    assert cluster.phase == "Paused"
    assert "topup --checkpoints" in cluster.event("RequestIgnored")
    before = cluster.status.checkpoints.saved
    cluster.api.change("budgets", NAMESPACE, "default", {"spec": {"checkpointQuota": 40}})
    cluster.annotate(**{"finetune.dev/request": "resume/2"})
    await trained(cluster, "Succeeded", save_every=5)
    assert cluster.status.checkpoints.saved > before
    assert cluster.budget.checkpoints == cluster.status.checkpoints.saved == len(cluster.store.checkpoints)


async def test_a_resume_asks_for_what_is_left_to_write() -> None:
    """O-14, Q-03: a pause costs one more; the steps that are done are not asked for again."""
    cluster = limited(11)
    cluster.create(UNPRICED)
    await cluster.until(lambda: (p := cluster.status.progress) is not None and p.step >= 45, train=1, save_every=10)
    cluster.edit({"suspend": True})
    await trained(cluster, "Paused")
    assert (cluster.budget.checkpoints, cluster.budget.checkpoints_reserved) == (5, 0)
    cluster.edit({"suspend": False})
    await trained(cluster, "Succeeded")
    assert cluster.budget.checkpoints == 11


async def test_what_cannot_be_estimated_starts_while_the_quota_lasts() -> None:
    """O-14: it asks for one checkpoint, and is given another each time."""
    cluster = limited(30, checkpoints=None)
    cluster.create(UNPRICED)
    await cluster.until(lambda: cluster.status.run == 1)
    assert cluster.budget.checkpoints_reserved == 1
    await trained(cluster, "Succeeded")
    assert cluster.budget.checkpoints == 10


async def test_checkpoints_that_nobody_heard_of_are_counted() -> None:
    """O-14: the operator is away while a job writes more checkpoints than a post has; a deleted job's stay counted."""
    cluster = limited(100)
    cluster.create(UNPRICED)
    await cluster.until(lambda: cluster.phase == "Training", train=1, save_every=10)
    for _ in range(85):
        await cluster.train(1, save_every=10)
        cluster.clock.advance(1)
    await cluster.settle()
    assert cluster.budget.checkpoints == len(cluster.store.checkpoints) > 5
    uid = cluster.manifest["metadata"]["uid"]
    cluster.farewells[uid] = Used("0", 9)
    cluster.api.remove(("finetunejobs", NAMESPACE, cluster.key.name))
    for _ in range(3):
        await cluster.settle_budget()
    assert (cluster.budget.checkpoints, cluster.budget.closed_checkpoints, cluster.budget.shares) == (9, 9, {})


async def test_two_jobs_do_not_write_the_same_quota() -> None:
    """O-14: what one is to write is not there for another, with a price or without."""
    cluster = limited(15)
    cluster.create(UNPRICED)
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    second = beside(cluster, "second", UNPRICED)
    estimate_checkpoints(second, 10)
    await waits(second, "AwaitingBalance")
    assert second.condition("BalanceSufficient") == ("False", "QuotaTooLow")
    cluster.edit({"desiredState": "Cancelled"})
    await cluster.until(lambda: cluster.phase == "Cancelled", train=1)
    await second.until(lambda: second.status.run == 1)


async def test_a_quota_that_is_taken_away_holds_nobody() -> None:
    """X41: it is optional."""
    cluster = limited(3)
    cluster.create(UNPRICED)
    await waits(cluster, "AwaitingBalance")
    cluster.api.change("budgets", NAMESPACE, "default", {"spec": {"checkpointQuota": None}})
    await cluster.until(lambda: cluster.status.run == 1)
    assert cluster.condition("BalanceSufficient") is None


@given(steps=st.lists(st.sampled_from(["go", "go", "go", "crash", "pause", "resume", "checkpoint", "later"]), min_size=5, max_size=30))
@settings(max_examples=20, deadline=None)
async def test_each_checkpoint_is_counted_once(steps: list[str]) -> None:
    """O-14: over pauses, requests, crashes of the operator between any two writes, and attempts."""
    cluster = limited(50)
    crash_after = -1

    def fault(call: Call, moment: str) -> None:
        nonlocal crash_after
        if call.is_write and moment == "after" and crash_after >= 0:
            crash_after -= 1
            if crash_after < 0:
                raise CrashError

    cluster.api.fault = fault
    cluster.create(UNPRICED)
    counted = 0
    for number, step in enumerate(steps):
        match step:
            case "crash":
                crash_after = len(cluster.api.calls) % 4
            case "pause" | "resume":
                cluster.edit({"suspend": step == "pause"})
            case "checkpoint":
                cluster.annotate(**{"finetune.dev/request": f"checkpoint/{number}"})
            case "later":
                cluster.clock.advance(700)
            case _:
                assert step == "go"
        for _ in range(8):
            await cluster.reconcile()
            cluster.step()
            await cluster.train(1, save_every=3)
            cluster.clock.advance(1)
            assert cluster.budget.checkpoints >= counted
            counted = cluster.budget.checkpoints
            assert counted <= len(cluster.store.checkpoints)
    crash_after = -1
    await cluster.settle()
    assert cluster.budget.checkpoints == cluster.status.checkpoints.saved == len(cluster.store.checkpoints)

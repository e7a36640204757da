"""What each job of a namespace may still cost: one decision of the leader for the whole Budget.

Nothing is timed or counted here. Credits are in the spec, what was used is in the statuses of the jobs (exactly: ``usage.rateSeconds``),
what is asked for is in them too: a job in phase AwaitingBalance asks for its next run. The Budget's status keeps what could not be had from
them again: who was granted what, and what deleted jobs have cost. So an operator that was away, or ended between two writes, charges
nothing twice and forgets nothing; only what a job that is deleted while no operator runs has used since the last look is not charged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_DOWN, Decimal

from finetune_api.constants import BALANCE_EXHAUSTED
from finetune_api.models.budget import MAX_SHARES, BudgetShare, BudgetStatus
from finetune_api.models.estimate import CostEstimate
from finetune_api.models.status import RESTING_PHASES, Condition, ConditionType, Phase
from finetune_api.pricing import cost_of, from_rate_seconds, shown
from finetune_operator.plan import conditions
from finetune_operator.plan.observed import BudgetObject, JobObject

EXTENSION_SECONDS = Decimal(600)
"""A job that takes longer than was estimated gets this much more at a time, while there is money that nobody has reserved."""
LOW_SECONDS = Decimal(180)
"""It gets it when it has less than this left, or than a quarter of what it was granted."""
METERING_SECONDS = 60
"""A job with a share is looked at, and what it has used is written, at least this often (O-09)."""
BALANCE_TOO_LOW = "BalanceTooLow"
"""Reason of AwaitingBalance: the Budget has less left than the job may cost."""
_WITHOUT_CLAIM = frozenset({*RESTING_PHASES, Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.EXPORTING})
"""Phases of a job without a run under way in which nothing is reserved for it."""
_PLACES = Decimal("0.0001")


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetObserved:
    """Everything a decision on a Budget is made from."""

    budget: BudgetObject
    jobs: Sequence[JobObject]
    """All FineTuneJobs of its namespace."""
    farewells: Mapping[str, str] = field(default_factory=dict)
    """uid of a job that is gone -> what its last status said it had used (rateSeconds)."""


def credited_to(budget: BudgetObject) -> Decimal:
    """All that was given."""
    return sum((Decimal(credit["amount"]) for credit in budget.spec.get("credits") or ()), Decimal(0))


def free_of(budget: BudgetObject) -> Decimal:
    """Money that no job has used or reserved: what was just given counts, although nobody has looked at it yet."""
    return credited_to(budget) - Decimal(budget.status.settled) - Decimal(budget.status.reserved)


def reserved_of(share: BudgetShare | None) -> Decimal:
    """What a job may still use."""
    if share is None or share.limit is None:
        return Decimal(0)
    return max(Decimal(0), Decimal(share.limit) - from_rate_seconds(share.rate_seconds))


def is_granted(share: BudgetShare | None, job: JobObject, cost: CostEstimate) -> bool:
    """Whether a job has what its next run may cost, as it asked for it."""
    if share is None or share.limit is None:
        return False
    is_of_next = (share.run, share.generation) == (job.status.run + 1, job.generation)
    return is_of_next and Decimal(share.limit) >= Decimal(cost.high)


def plan_budget(observed: BudgetObserved, *, now: datetime) -> BudgetStatus:
    """The Budget's status as it must be now. Deciding again from it changes nothing more."""
    budget = observed.budget
    shares, closed = _carried_over(observed)
    credited = credited_to(budget)
    settled = from_rate_seconds(str(closed + sum(Decimal(s.rate_seconds) - Decimal(s.before) for s in shares.values())))
    free = credited - settled - sum(map(reserved_of, shares.values()))
    for job in sorted(observed.jobs, key=lambda job: (job.created_at, job.name)):
        share = shares.get(job.uid)
        new = _granted(budget, job, share, free, is_full=len(shares) >= MAX_SHARES) or _extended(budget, job, share, free) or share
        if new is not None:
            free += reserved_of(share) - reserved_of(new)
            shares[job.uid] = new
    status = budget.status.model_copy(
        update={
            "observed_generation": budget.generation,
            "credited": shown(credited),
            "settled": shown(settled),
            "reserved": shown(sum(map(reserved_of, shares.values()), Decimal(0))),
            "balance": shown(credited - settled),
            "jobs": len(shares),
            "shares": shares,
            "closed_rate_seconds": _text(closed),
        }
    )
    return status.model_copy(update={"conditions": _conditions(observed, status, now)})


def _conditions(observed: BudgetObserved, status: BudgetStatus, now: datetime) -> list[Condition]:
    """Ready as in kstatus, and whether jobs wait for credit."""
    waiting = sorted(job.name for job in observed.jobs if _waits(job))
    first = ", ".join(waiting[:5])
    message = f"{len(waiting)} jobs wait for credit: {first}{', ...' if len(waiting) > 5 else ''}" if waiting else ""
    told: tuple[tuple[str, conditions.Verdict, str, str], ...] = (
        (ConditionType.READY, "True", "Settled", f"{status.settled} {observed.budget.currency} of {status.credited} are used."),
        (ConditionType.RECONCILING, "False", "Settled", ""),
        (ConditionType.STALLED, "False", "Settled", ""),
        ("Exhausted", "True" if waiting else "False", "JobsWait" if waiting else "NoJobWaits", message),
    )
    merged: list[Condition] = list(status.conditions)
    for kind, verdict, reason, text in told:
        new = Condition(
            type=kind,
            status=verdict,
            reason=reason,
            message=text,
            last_transition_time=conditions.format_time(now),
            observed_generation=status.observed_generation,
        )
        merged = conditions.merge(merged, new)
    return merged


def _waits(job: JobObject) -> bool:
    """Whether a job waits for credit, before its start or in a pause."""
    status = job.status
    held = status.hold is not None and status.hold.reason == BALANCE_EXHAUSTED and status.phase is Phase.PAUSED
    return held or (status.phase is Phase.AWAITING_BALANCE and status.reason == BALANCE_TOO_LOW)


def _carried_over(observed: BudgetObserved) -> tuple[dict[str, BudgetShare], Decimal]:
    """The shares there are, with what was used meanwhile, and what deleted jobs have cost."""
    jobs = {job.uid: job for job in observed.jobs}
    closed = Decimal(observed.budget.status.closed_rate_seconds)
    shares: dict[str, BudgetShare] = {}
    for uid, share in observed.budget.status.shares.items():
        job = jobs.get(uid)
        said = job.status.usage.rate_seconds if job is not None else observed.farewells.get(uid)
        used = max(Decimal(share.rate_seconds), Decimal(said or "0"))
        if job is None:
            closed += used - Decimal(share.before)
        else:
            kept = share.limit if _has_claim(job, share) else None
            shares[uid] = share.model_copy(update={"rate_seconds": _text(used), "limit": kept})
    return shares, closed


def _has_claim(job: JobObject, share: BudgetShare) -> bool:
    """Whether what a job was granted is kept for it: while the run goes on or is tried again, or is about to be made."""
    if share.run == job.status.run:
        return job.has_open_run or job.status.phase not in _WITHOUT_CLAIM
    return (share.run, share.generation) == (job.status.run + 1, job.generation) and job.status.phase not in _WITHOUT_CLAIM


def _granted(budget: BudgetObject, job: JobObject, share: BudgetShare | None, free: Decimal, *, is_full: bool) -> BudgetShare | None:
    """The share of a job that asks, if there is money for all that its next run may cost."""
    cost = _asked(budget, job)
    if cost is None or is_granted(share, job, cost) or (share is None and is_full):
        return None
    used = max(Decimal(job.status.usage.rate_seconds or "0"), Decimal(share.rate_seconds if share is not None else "0"))
    if Decimal(cost.high) - from_rate_seconds(str(used)) > free + reserved_of(share):
        return None
    before = share.before if share is not None else _text(used)
    return BudgetShare(
        name=job.name, run=job.status.run + 1, generation=job.generation, before=before, rate_seconds=_text(used), limit=cost.high
    )


def _asked(budget: BudgetObject, job: JobObject) -> CostEstimate | None:
    """What a job asks for; None: it does not, or not of this Budget."""
    status = job.status
    if job.deleted_at is not None or status.phase is not Phase.AWAITING_BALANCE or status.observed_generation != job.generation:
        return None
    cost = status.estimate.cost if status.estimate is not None else None
    return cost if cost is not None and cost.currency == budget.currency else None


def _extended(budget: BudgetObject, job: JobObject, share: BudgetShare | None, free: Decimal) -> BudgetShare | None:
    """The share of a job whose run takes longer than was estimated, with some of the money that nobody has reserved."""
    usage = job.status.usage
    if share is None or not job.has_open_run or share.run != job.status.run or usage.hourly_rate is None:
        return None
    gpus = max(1, job.status.gpus or 1)
    quarter = (Decimal(share.limit or "0") - from_rate_seconds(share.before)) / 4
    if share.limit is not None and reserved_of(share) >= min(quarter, cost_of(LOW_SECONDS * gpus, usage.hourly_rate)):
        return None
    limit = max(Decimal(share.limit or "0"), from_rate_seconds(share.rate_seconds))
    most = min(cost_of(EXTENSION_SECONDS * gpus, usage.hourly_rate), free)
    if budget.approval_above is not None:
        most = min(most, max(budget.approval_above, Decimal(job.status.approved_cost or "0")) - limit)
    more = most.quantize(_PLACES, ROUND_DOWN)
    return share.model_copy(update={"limit": shown(limit.quantize(_PLACES, ROUND_DOWN) + more)}) if more > 0 else None


def _text(number: Decimal) -> str:
    return f"{number.normalize():f}"

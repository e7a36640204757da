"""What each job of a namespace may still cost and write: one decision of the leader for the whole Budget.

Nothing is timed or counted here. Credits and the quota of checkpoints are in the spec, what was used is in the statuses of the jobs
(exactly: ``usage.rateSeconds``, ``checkpoints.saved``), what is asked for is in them too: a job in phase AwaitingBalance asks for its next
run. The Budget's status keeps what could not be had from them again: who was granted what, and what deleted jobs have used. So an operator
that was away, or ended between two writes, charges nothing twice and forgets nothing; only what a job that is deleted while no operator
runs has used since the last look is not charged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_DOWN, Decimal
from typing import NamedTuple

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
QUOTA_TOO_LOW = "QuotaTooLow"
"""Reason of AwaitingBalance: fewer checkpoints are left than the job is estimated to write."""
_WITHOUT_CLAIM = frozenset({*RESTING_PHASES, Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.EXPORTING})
"""Phases of a job without a run under way in which nothing is reserved for it."""
_PLACES = Decimal("0.0001")


class Ask(NamedTuple):
    """What a job asks of its Budget for the next run, what it has used so far included."""

    cost: CostEstimate | None
    """None: it has no price."""
    quota: int | None
    """Checkpoints. None: there is no quota."""


class Used(NamedTuple):
    """What a job has used, as its status says."""

    rate_seconds: str = "0"
    checkpoints: int = 0


class _Free(NamedTuple):
    """What no job has used or reserved."""

    money: Decimal
    checkpoints: int | None
    """None: any number."""

    def after(self, before: BudgetShare | None, now: BudgetShare) -> _Free:
        """What is left when a share has become another one."""
        more = reserved_checkpoints(now) - reserved_checkpoints(before)
        left = self.checkpoints - more if self.checkpoints is not None else None
        return _Free(self.money + reserved_of(before) - reserved_of(now), left)


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetObserved:
    """Everything a decision on a Budget is made from."""

    budget: BudgetObject
    jobs: Sequence[JobObject]
    """All FineTuneJobs of its namespace."""
    farewells: Mapping[str, Used] = field(default_factory=dict)
    """uid of a job that is gone -> what its last status said it had used."""


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


def free_checkpoints(budget: BudgetObject) -> int | None:
    """Checkpoints that no job has written or reserved; None: any number."""
    quota = budget.checkpoint_quota
    return quota - budget.status.checkpoints - budget.status.checkpoints_reserved if quota is not None else None


def reserved_checkpoints(share: BudgetShare | None) -> int:
    """How many checkpoints a job may still write of those it was granted."""
    if share is None or share.checkpoint_limit is None:
        return 0
    return max(0, share.checkpoint_limit - share.checkpoints)


def is_granted(share: BudgetShare | None, job: JobObject, ask: Ask) -> bool:
    """Whether a job has what its next run may cost and write, as it asked for it."""
    if share is None or (share.run, share.generation) != (job.status.run + 1, job.generation):
        return False
    is_paid = ask.cost is None or (share.limit is not None and Decimal(share.limit) >= Decimal(ask.cost.high))
    return is_paid and (ask.quota is None or (share.checkpoint_limit is not None and share.checkpoint_limit >= ask.quota))


def plan_budget(observed: BudgetObserved, *, now: datetime) -> BudgetStatus:
    """The Budget's status as it must be now. Deciding again from it changes nothing more."""
    budget = observed.budget
    shares, closed = _carried_over(observed)
    credited, quota = credited_to(budget), budget.checkpoint_quota
    settled = from_rate_seconds(
        str(Decimal(closed.rate_seconds) + sum(Decimal(s.rate_seconds) - Decimal(s.before) for s in shares.values()))
    )
    written = closed.checkpoints + sum(s.checkpoints - s.checkpoints_before for s in shares.values())
    free = _Free(
        credited - settled - sum(map(reserved_of, shares.values())),
        quota - written - sum(map(reserved_checkpoints, shares.values())) if quota is not None else None,
    )
    for job in sorted(observed.jobs, key=lambda job: (job.created_at, job.name)):
        share = shares.get(job.uid)
        new = _granted(budget, job, share, free, is_full=len(shares) >= MAX_SHARES)
        new = new or _with_another_checkpoint(job, _extended(budget, job, share, free.money) or share, free.checkpoints)
        if new is not None:
            free = free.after(share, new)
            shares[job.uid] = new
    status = budget.status.model_copy(
        update={
            "observed_generation": budget.generation,
            "credited": shown(credited),
            "settled": shown(settled),
            "reserved": shown(sum(map(reserved_of, shares.values()), Decimal(0))),
            "balance": shown(credited - settled),
            "checkpoints": written,
            "checkpoints_reserved": sum(map(reserved_checkpoints, shares.values())),
            "jobs": len(shares),
            "shares": shares,
            "closed_rate_seconds": closed.rate_seconds,
            "closed_checkpoints": closed.checkpoints,
        }
    )
    return status.model_copy(update={"conditions": _conditions(observed, status, now)})


def _conditions(observed: BudgetObserved, status: BudgetStatus, now: datetime) -> list[Condition]:
    """Ready as in kstatus, and whether jobs wait for credit."""
    waiting = sorted(job.name for job in observed.jobs if _waits(job))
    first = ", ".join(waiting[:5])
    message = f"{len(waiting)} jobs wait for credit or quota: {first}{', ...' if len(waiting) > 5 else ''}" if waiting else ""
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
    """Whether a job waits for credit or quota, before its start or in a pause."""
    status = job.status
    held = status.hold is not None and status.hold.reason == BALANCE_EXHAUSTED and status.phase is Phase.PAUSED
    return held or (status.phase is Phase.AWAITING_BALANCE and status.reason in (BALANCE_TOO_LOW, QUOTA_TOO_LOW))


def _carried_over(observed: BudgetObserved) -> tuple[dict[str, BudgetShare], Used]:
    """The shares there are, with what was used meanwhile, and what deleted jobs have used."""
    jobs = {job.uid: job for job in observed.jobs}
    closed, closed_checkpoints = Decimal(observed.budget.status.closed_rate_seconds), observed.budget.status.closed_checkpoints
    shares: dict[str, BudgetShare] = {}
    for uid, share in observed.budget.status.shares.items():
        job = jobs.get(uid)
        said = used_by(job) if job is not None else observed.farewells.get(uid, Used())
        used = max(Decimal(share.rate_seconds), Decimal(said.rate_seconds))
        written = max(share.checkpoints, said.checkpoints)
        if job is None:
            closed += used - Decimal(share.before)
            closed_checkpoints += written - share.checkpoints_before
        else:
            is_kept = _has_claim(job, share)
            limit, most = (share.limit, share.checkpoint_limit) if is_kept else (None, None)
            shares[uid] = share.model_copy(
                update={"rate_seconds": _text(used), "limit": limit, "checkpoints": written, "checkpoint_limit": most}
            )
    return shares, Used(_text(closed), closed_checkpoints)


def used_by(job: JobObject) -> Used:
    """What a job has used so far."""
    return Used(job.status.usage.rate_seconds or "0", job.status.checkpoints.saved)


def _has_claim(job: JobObject, share: BudgetShare) -> bool:
    """Whether what a job was granted is kept for it: while the run goes on or is tried again, or is about to be made."""
    if share.run == job.status.run:
        return job.has_open_run or job.status.phase not in _WITHOUT_CLAIM
    return (share.run, share.generation) == (job.status.run + 1, job.generation) and job.status.phase not in _WITHOUT_CLAIM


def _granted(budget: BudgetObject, job: JobObject, share: BudgetShare | None, free: _Free, *, is_full: bool) -> BudgetShare | None:
    """The share of a job that asks, if there is money for all that its next run may cost, and quota for what it is to write."""
    ask, said = _asked(budget, job), used_by(job)
    if ask is None or is_granted(share, job, ask) or (share is None and is_full):
        return None
    used = max(Decimal(said.rate_seconds), Decimal(share.rate_seconds if share is not None else "0"))
    written = max(said.checkpoints, share.checkpoints if share is not None else 0)
    if ask.cost is not None and Decimal(ask.cost.high) - from_rate_seconds(str(used)) > free.money + reserved_of(share):
        return None
    if ask.quota is not None and free.checkpoints is not None and ask.quota - written > free.checkpoints + reserved_checkpoints(share):
        return None
    return BudgetShare(
        name=job.name,
        run=job.status.run + 1,
        generation=job.generation,
        before=share.before if share is not None else _text(used),
        rate_seconds=_text(used),
        limit=ask.cost.high if ask.cost is not None else None,
        checkpoints_before=share.checkpoints_before if share is not None else written,
        checkpoints=written,
        checkpoint_limit=ask.quota,
    )


def _asked(budget: BudgetObject, job: JobObject) -> Ask | None:
    """What a job asks for; None: it does not, or not of this Budget."""
    status = job.status
    if job.deleted_at is not None or status.phase is not Phase.AWAITING_BALANCE or status.observed_generation != job.generation:
        return None
    cost, quota = (status.estimate.cost, status.estimate.quota) if status.estimate is not None else (None, None)
    ask = Ask(cost, quota if budget.checkpoint_quota is not None else None)
    if ask == (None, None) or (cost is not None and cost.currency != budget.currency):
        return None
    return ask


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


def _with_another_checkpoint(job: JobObject, share: BudgetShare | None, free: int | None) -> BudgetShare | None:
    """The share of a job that writes more checkpoints than was estimated, with one more, if one is left."""
    if share is None or free is None or free <= 0 or not job.has_open_run or share.run != job.status.run:
        return share
    if share.checkpoint_limit is not None and share.checkpoints < share.checkpoint_limit:
        return share
    return share.model_copy(update={"checkpoint_limit": max(share.checkpoint_limit or 0, share.checkpoints) + 1})


def _text(number: Decimal) -> str:
    return f"{number.normalize():f}"

"""What the GPUs were used for, and the limits on it.

The trainer's clocks are monotonic and run through all attempts; the operator multiplies what is new in them by the GPUs of the run that
reports it. Nothing is timed here, so that an operator that was away or restarted counts neither twice nor too little. Paused, queued and
pending time has no pods and is in no clock.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from finetune_api.constants import BALANCE_EXHAUSTED, LIMIT_REACHED
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import UsageSeconds
from finetune_api.models.budget import BudgetShare
from finetune_api.models.status import HoldStatus, UsageStatus
from finetune_api.pricing import SECONDS_PER_HOUR, charge
from finetune_operator.plan.custom import method_of
from finetune_operator.plan.desire import Desire
from finetune_operator.plan.draft import Draft, annotations_of
from finetune_operator.plan.funds import METERING_SECONDS, free_checkpoints, free_of
from finetune_operator.plan.names import ANNOTATION_DEVICES
from finetune_operator.plan.observed import parse_time

_LONGEST_LOOK_SECONDS = float(METERING_SECONDS)
"""Clocks are extrapolated between two reports; at least this often they are compared again."""
_USES = ("starting", "productive", "checkpointing", "replayed", "evaluating")


def count_usage(draft: Draft, reported: UsageSeconds) -> None:
    """Add what is new in the trainer's clocks. A report that was counted, or is older, adds nothing."""
    usage = draft.status.usage
    before = usage.clocks or [0.0] * len(_USES)
    clocks = [max(old, round(getattr(reported, use), 1)) for use, old in zip(_USES, before, strict=True)]
    added = [new - old for new, old in zip(clocks, before, strict=True)]
    if not any(added):
        return
    devices = _devices(draft)
    values = {
        f"{use}_seconds": round(getattr(usage, f"{use}_seconds") + seconds * devices, 1) for use, seconds in zip(_USES, added, strict=True)
    }
    active = round(usage.active_seconds + sum(added), 1)
    draft.change(usage=_charged(usage.model_copy(update={**values, "active_seconds": active, "clocks": clocks}), sum(added) * devices))


def count_pods(draft: Draft) -> None:
    """Add the time the pods of the run were at work, at its end: a TrainingMethod's program has no clocks that we know of."""
    pods = [pod for pod in draft.observed.pods if pod.run == draft.status.run and pod.started_at is not None]
    started = min((pod.started_at for pod in pods if pod.started_at is not None), default=None)
    if started is None:
        return
    ended = max((pod.finished_at or draft.now) if pod.ended else draft.now for pod in pods)
    seconds = max(0.0, (ended - started) / timedelta(seconds=1))
    usage = draft.status.usage
    productive = round(usage.productive_seconds + seconds * _devices(draft), 1)
    counted = usage.model_copy(update={"productive_seconds": productive, "active_seconds": round(usage.active_seconds + seconds, 1)})
    draft.change(usage=_charged(counted, seconds * _devices(draft)))


def at_rate_of(usage: UsageStatus, config: RunConfig) -> UsageStatus:
    """The usage from the start of a run on, at the price that its GpuType had; what was used before keeps its own."""
    gpu_type = config.gpu_type.spec if config.gpu_type is not None else None
    if gpu_type is None or gpu_type.hourly_rate is None:
        return usage.model_copy(update={"hourly_rate": None})
    priced = usage.model_copy(update={"hourly_rate": gpu_type.hourly_rate, "currency": gpu_type.currency})
    return _charged(priced, 0.0)


def _charged(usage: UsageStatus, seconds: float) -> UsageStatus:
    """Add the cost of GPU seconds; nothing without a price."""
    return usage if usage.hourly_rate is None else usage.model_copy(update=charge(usage.rate_seconds, seconds, usage.hourly_rate)._asdict())


def gpu_seconds(usage: UsageStatus) -> float:
    """GPU seconds of all uses."""
    return float(sum(getattr(usage, f"{use}_seconds") for use in _USES))


def hold_at_limit(draft: Draft) -> None:
    """Decide on a pause when a limit or the job's share of the Budget is reached; else ask to be called again when it may be."""
    if draft.status.hold is not None or draft.status.failure is not None or (draft.attempt is None and draft.desire is not Desire.RUN):
        return
    unreported = _unreported_seconds(draft)
    limits = (_seconds_left(draft, unreported), _funded_seconds(draft, unreported), _seconds_of_quota(draft))
    left = min((seconds for seconds in limits if seconds is not None), default=None)
    if left is None or (left > 0 and draft.attempt is None):
        return
    if left > 0:
        draft.wake_in(min(max(left, 1.0), _LONGEST_LOOK_SECONDS))
        return
    limit = limit_message(draft)
    reason, message = (LIMIT_REACHED, limit) if limit else (BALANCE_EXHAUSTED, _balance_message(draft))
    draft.change(hold=HoldStatus(reason=reason, message=message, since=draft.now_text))
    draft.say(reason, message, kind="Warning", key=draft.now_text)
    draft.wake_in(0)


def resume_refusal(draft: Draft) -> str:
    """Why a pause of the operator cannot end: a limit that is used up, or a Budget without money; empty if it can."""
    if limit := limit_message(draft):
        return limit
    hold, budget = draft.status.hold, draft.observed.budget
    if hold is None or hold.reason != BALANCE_EXHAUSTED or budget is None:
        return ""
    free = free_checkpoints(budget)
    exhausted = (draft.status.usage.hourly_rate is not None and free_of(budget) <= 0) or (free is not None and free <= 0)
    return _balance_message(draft) if exhausted else ""


def _balance_message(draft: Draft) -> str:
    budget, usage = draft.observed.budget, draft.status.usage
    assert budget is not None, "only a Budget is exhausted"
    free = free_checkpoints(budget)
    if free is not None and free <= 0:
        return (
            f"The job has written {draft.status.checkpoints.saved} checkpoints, and of the {budget.checkpoint_quota} of Budget"
            f" {budget.name} (spec.checkpointQuota) none is left for it ({budget.status.checkpoints} written, reserved for jobs"
            f" {budget.status.checkpoints_reserved}): kubectl finetune topup --checkpoints NUMBER -n {draft.job.namespace}, then request"
            f" resume (kubectl finetune resume {draft.job.name})."
        )
    return (
        f"The job has cost {usage.cost} {usage.currency}, and Budget {budget.name} has nothing left for it (balance"
        f" {budget.status.balance}, reserved for jobs {budget.status.reserved}): kubectl finetune topup AMOUNT -n"
        f" {draft.job.namespace}, then request resume (kubectl finetune resume {draft.job.name})."
    )


def _share(draft: Draft) -> BudgetShare | None:
    """What the run under way was granted; None: it needed nothing, or began before there was a Budget."""
    share = draft.observed.budget.status.shares.get(draft.job.uid) if draft.observed.budget is not None else None
    return share if share is not None and draft.attempt is not None and share.run == draft.status.run else None


def _funded_seconds(draft: Draft, unreported: float) -> float | None:
    """Seconds the pods may still be at work for what the job has of the Budget; None without a share in it.

    Where the Budget has money that nobody has reserved, it gives the job more as soon as it hears what it has used: within a minute.
    """
    usage, share = draft.status.usage, _share(draft)
    if share is None or usage.hourly_rate is None or Decimal(usage.hourly_rate) == 0:
        return None
    assert draft.observed.budget is not None, "the share is from there"
    per_second = Decimal(usage.hourly_rate) * _devices(draft)
    left = Decimal(share.limit or "0") * SECONDS_PER_HOUR - Decimal(usage.rate_seconds or "0")
    free = max(Decimal(0), free_of(draft.observed.budget) * SECONDS_PER_HOUR)
    return float(left / per_second) + min(float(free / per_second), float(METERING_SECONDS)) - unreported


def _seconds_of_quota(draft: Draft) -> float | None:
    """0 when the run has written all checkpoints it was granted, none is free and training goes on; None without a quota.

    Until then the time to the next look: what is free may go to another job.
    """
    budget, share = draft.observed.budget, _share(draft)
    free = free_checkpoints(budget) if budget is not None else None
    if share is None or free is None:
        return None
    saved, progress = draft.status.checkpoints.saved, draft.status.progress
    limit = share.checkpoint_limit or 0
    is_over = progress is not None and progress.run == draft.status.run and 0 < progress.total_steps <= progress.step
    unheard = max(0, saved - max(limit, share.checkpoints))
    return 0.0 if saved >= limit and free <= unheard and not is_over else float(METERING_SECONDS)


def limit_message(draft: Draft) -> str:
    """Which limits are used up, and how to go on; empty while there is room."""
    usage, limits = draft.status.usage, draft.job.spec.get("limits") or {}
    unreported = _unreported_seconds(draft)
    parts = []
    seconds = usage.active_seconds + unreported
    if (most := limits.get("maxActiveSeconds")) is not None and seconds >= most:
        parts.append(f"spec.limits.maxActiveSeconds is {most}, and the pods were at work for {seconds:.0f} s")
    hours = (gpu_seconds(usage) + unreported * _devices(draft)) / 3600
    if (most := limits.get("maxGpuHours")) is not None and hours >= most:
        parts.append(f"spec.limits.maxGpuHours is {most:g}, and {hours:.2f} were used")
    return f"{'; '.join(parts)}. Raise it, then request resume (kubectl finetune resume {draft.job.name})." if parts else ""


def _seconds_left(draft: Draft, unreported: float) -> float | None:
    """Seconds the pods may still be at work; None without a limit."""
    usage, limits = draft.status.usage, draft.job.spec.get("limits") or {}
    left = []
    if (most := limits.get("maxActiveSeconds")) is not None:
        left.append(most - usage.active_seconds - unreported)
    if (most := limits.get("maxGpuHours")) is not None:
        left.append((most * 3600 - gpu_seconds(usage)) / _devices(draft) - unreported)
    return min(left, default=None)


def _unreported_seconds(draft: Draft) -> float:
    """Time the pods have been at work since the last report, or since they started when none came; 0 while none is.

    The only part that the operator's wall clock measures, and it is not added to the usage. A clock that is put forward between two reports
    cannot be told from a trainer that is silent, so it may reach a limit early: the job is held with a checkpoint, and since the time was
    not used, the request resume goes on without a higher limit.
    """
    at_work = [pod.started_at for pod in draft.observed.pods if pod.run == draft.status.run and pod.started_at and not pod.ended]
    if draft.attempt is None or not at_work:
        return 0.0
    progress = draft.status.progress
    since = min(at_work)
    reported = parse_time(progress.updated_at) if progress is not None and progress.run == draft.status.run else None
    if reported is not None and method_of(draft) is None:
        since = max(since, reported)
    return max(0.0, (draft.now - since) / timedelta(seconds=1))


def _devices(draft: Draft) -> int:
    """GPUs of the run (ranks on CPU)."""
    return max(1, int(annotations_of(draft).get(ANNOTATION_DEVICES, "1")))

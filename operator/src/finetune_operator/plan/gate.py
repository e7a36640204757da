"""Between a checked spec and its pods: what the run may cost and write is estimated, approved, and reserved in the namespace's Budget.

::

    AwaitingApproval   status.estimate.cost is above spec.approvalAbove of the Budget: the request approve
    AwaitingBalance    asks the Budget (:mod:`finetune_operator.plan.funds` answers), or waits for credit or quota
"""

from __future__ import annotations

from decimal import Decimal

from finetune_api.contract.run_config import RunConfig
from finetune_api.length import length_of
from finetune_api.models.budget import MAX_SHARES
from finetune_api.models.estimate import CostEstimate, Estimate
from finetune_api.models.status import ConditionType, Phase
from finetune_api.pricing import from_rate_seconds, shown
from finetune_operator.plan.conditions import find
from finetune_operator.plan.cost import estimate_cost, price_of
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.funds import (
    BALANCE_TOO_LOW,
    QUOTA_TOO_LOW,
    Ask,
    free_checkpoints,
    free_of,
    is_granted,
    reserved_checkpoints,
    reserved_of,
)
from finetune_operator.plan.observed import BudgetObject

LOOK_AGAIN_SECONDS = 30.0
"""Of a job that waits for an edit."""


def may_cost(draft: Draft, config: RunConfig) -> bool:
    """Whether nothing stands between the run and what it may cost and write; else the job shows what does."""
    gpu_type, budget = price_of(config), draft.observed.budget
    cost = estimate_cost(draft, config, gpu_type) if gpu_type is not None else None
    quota = _checkpoints_of(draft, config) if budget is not None and budget.checkpoint_quota is not None else None
    _note(draft, cost, budget, quota)
    if budget is None or (gpu_type is None and quota is None):
        draft.drop_condition(ConditionType.BALANCE_SUFFICIENT)
        return True
    if gpu_type is not None and gpu_type.currency != budget.currency:
        _refuse(
            draft,
            "CurrencyDiffers",
            f"spec.resources.gpuType is priced in {gpu_type.currency}, and Budget {budget.name} is in {budget.currency};"
            f" choose a GpuType priced in {budget.currency}",
        )
        return False
    if gpu_type is not None and cost is None:
        _refuse(
            draft,
            "CostUnknown",
            f"spec.limits.maxGpuHours is not set, and what the job will cost cannot be estimated; Budget {budget.name} needs one of them:"
            " write spec.limits.maxGpuHours",
        )
        return False
    return (cost is None or _is_approved(draft, budget, cost)) and _is_funded(draft, budget, Ask(cost, quota))


def _checkpoints_of(draft: Draft, config: RunConfig) -> int | None:
    """Checkpoints that the job will have written after its next run (O-15), at least one more; None: its own program writes them.

    Those of checkpoint.intervalMinutes, of pauses and of requests come on top, one at a time, while the quota has some left.
    """
    if config.custom is not None:
        return None
    spec, ledger = config.spec, draft.status.checkpoints
    found = draft.status.estimate.training if draft.status.estimate is not None else None
    length = found or length_of(spec, rows=None, world_size=config.topology.world_size)
    if length is None or length.checkpoints is None:
        return ledger.saved + 1
    done = min(ledger.latest.step if ledger.latest is not None else 0, length.steps)
    by_steps = spec.checkpoint.strategy == "steps"
    behind = done // spec.checkpoint.steps if by_steps else done * length.checkpoints // max(1, length.steps)
    return ledger.saved + max(1, length.checkpoints - behind)


def _note(draft: Draft, cost: CostEstimate | None, budget: BudgetObject | None, quota: int | None) -> None:
    if cost is not None and budget is not None and budget.currency == cost.currency:
        left = _available(draft, budget) - _wanted(draft, cost)
        cost = cost.model_copy(update={"balance_after": shown(left)})
    before = draft.status.estimate
    if (cost, quota) != ((before.cost, before.quota) if before is not None else (None, None)):
        draft.change(estimate=(before or Estimate()).model_copy(update={"cost": cost, "quota": quota}))


def _wanted(draft: Draft, cost: CostEstimate) -> Decimal:
    """What the next run may cost."""
    return Decimal(cost.high) - from_rate_seconds(draft.status.usage.rate_seconds)


def _available(draft: Draft, budget: BudgetObject) -> Decimal:
    """What neither was used nor is reserved by other jobs."""
    return free_of(budget) + reserved_of(budget.status.shares.get(draft.job.uid))


def _refuse(draft: Draft, reason: str, message: str) -> None:
    draft.condition(ConditionType.BALANCE_SUFFICIENT, "False", reason, message)
    draft.show(Phase.PENDING, reason, message)
    draft.wake_in(LOOK_AGAIN_SECONDS)


def needs_approval(budget: BudgetObject, cost: CostEstimate, approved: str | None) -> bool:
    """Whether a job may cost more than may start by itself, and more than was approved."""
    above = budget.approval_above
    return above is not None and Decimal(cost.high) > max(above, Decimal(approved or "0"))


def _is_approved(draft: Draft, budget: BudgetObject, cost: CostEstimate) -> bool:
    if not needs_approval(budget, cost, draft.status.approved_cost):
        return True
    message = (
        f"It may cost {cost.low} to {cost.high} {cost.currency}, and Budget {budget.name} lets start by itself what costs at most"
        f" {budget.approval_above}: kubectl finetune approve {draft.job.name} -n {draft.job.namespace}."
    )
    if draft.phase is not Phase.AWAITING_APPROVAL:
        draft.say("ApprovalNeeded", message, key=cost.high)
    draft.show(Phase.AWAITING_APPROVAL, "ApprovalNeeded", message)
    return False


def _is_funded(draft: Draft, budget: BudgetObject, ask: Ask) -> bool:
    if is_granted(budget.status.shares.get(draft.job.uid), draft.job, ask):
        reserved = _told(ask.cost.high if ask.cost is not None else None, ask.quota)
        draft.condition(ConditionType.BALANCE_SUFFICIENT, "True", "Reserved", f"Budget {budget.name} has reserved {reserved} for it.")
        return True
    if draft.job.uid not in budget.status.shares and len(budget.status.shares) >= MAX_SHARES:
        message = f"Budget {budget.name} keeps account of {MAX_SHARES} jobs: delete some of namespace {draft.job.namespace} that are over."
        draft.condition(ConditionType.BALANCE_SUFFICIENT, "False", "TooManyJobs", message)
        draft.show(Phase.AWAITING_BALANCE, "TooManyJobs", message)
        return False
    if ask.cost is not None and (missing := _missing_money(draft, budget, ask.cost)):
        return _short_of(draft, BALANCE_TOO_LOW, missing, key=ask.cost.high)
    if ask.quota is not None and (missing := _missing_checkpoints(draft, budget, ask.quota)):
        return _short_of(draft, QUOTA_TOO_LOW, missing, key=str(ask.quota))
    money = f"{shown(_wanted(draft, ask.cost))} {ask.cost.currency}" if ask.cost is not None else None
    more = ask.quota - draft.status.checkpoints.saved if ask.quota is not None else None
    message = f"Budget {budget.name} is asked for {_told(money, more)}."
    draft.condition(ConditionType.BALANCE_SUFFICIENT, "Unknown", "Asked", message)
    draft.show(Phase.AWAITING_BALANCE, "Asked", message)
    return False


def _told(money: str | None, checkpoints: int | None) -> str:
    """What is asked or reserved, in words."""
    return " and ".join(part for part in (money, f"{checkpoints} checkpoints" if checkpoints is not None else None) if part)


def _short_of(draft: Draft, reason: str, message: str, *, key: str) -> bool:
    before = find(draft.status.conditions, ConditionType.BALANCE_SUFFICIENT)
    draft.condition(ConditionType.BALANCE_SUFFICIENT, "False", reason, message)
    if before is None or before.reason != reason:
        draft.say(reason, message, kind="Warning", key=f"{draft.status.run}/{key}")
    draft.show(Phase.AWAITING_BALANCE, reason, message)
    return False


def _missing_money(draft: Draft, budget: BudgetObject, cost: CostEstimate) -> str:
    """Why the balance does not do, and what mends it; empty if it does."""
    available, wanted = _available(draft, budget), _wanted(draft, cost)
    if available >= wanted:
        return ""
    return (
        f"It may cost {shown(wanted)} {cost.currency} more, and Budget {budget.name} has {shown(available)} that is neither used nor"
        f" reserved: kubectl finetune topup {shown(wanted - available)} -n {draft.job.namespace}."
    )


def _missing_checkpoints(draft: Draft, budget: BudgetObject, quota: int) -> str:
    """Why the quota does not do, and what mends it; empty if it does."""
    free, share = free_checkpoints(budget), budget.status.shares.get(draft.job.uid)
    assert free is not None, "a job asks only where there is a quota"
    available, wanted = free + reserved_checkpoints(share), quota - draft.status.checkpoints.saved
    if available >= wanted:
        return ""
    return (
        f"It is estimated to write {wanted} checkpoints more, and of the {budget.checkpoint_quota} of Budget {budget.name}"
        f" (spec.checkpointQuota) {budget.status.checkpoints} are used and {max(0, available)} are free for it: write fewer (a higher"
        f" spec.checkpoint.steps), or kubectl finetune topup --checkpoints {wanted - available} -n {draft.job.namespace}."
    )

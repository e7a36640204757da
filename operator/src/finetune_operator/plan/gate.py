"""Between a checked spec and its pods: what the run may cost is estimated, approved, and reserved in the Budget of the namespace.

::

    AwaitingApproval   status.estimate.cost is above spec.approvalAbove of the Budget: the request approve
    AwaitingBalance    asks the Budget (:mod:`finetune_operator.plan.funds` answers), or waits for credit
"""

from __future__ import annotations

from decimal import Decimal

from finetune_api.contract.run_config import RunConfig
from finetune_api.models.budget import MAX_SHARES
from finetune_api.models.estimate import CostEstimate, Estimate
from finetune_api.models.status import ConditionType, Phase
from finetune_api.pricing import from_rate_seconds, shown
from finetune_operator.plan.conditions import find
from finetune_operator.plan.cost import estimate_cost, price_of
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.funds import BALANCE_TOO_LOW, free_of, is_granted, reserved_of
from finetune_operator.plan.observed import BudgetObject

LOOK_AGAIN_SECONDS = 30.0
"""Of a job that waits for an edit."""


def may_cost(draft: Draft, config: RunConfig) -> bool:
    """Whether nothing stands between the run and what it may cost; else the job shows what does."""
    gpu_type, budget = price_of(config), draft.observed.budget
    cost = estimate_cost(draft, config, gpu_type) if gpu_type is not None else None
    _note(draft, cost, budget)
    if gpu_type is None or budget is None:
        draft.drop_condition(ConditionType.BALANCE_SUFFICIENT)
        return True
    if gpu_type.currency != budget.currency:
        _refuse(
            draft,
            "CurrencyDiffers",
            f"spec.resources.gpuType is priced in {gpu_type.currency}, and Budget {budget.name} is in {budget.currency};"
            f" choose a GpuType priced in {budget.currency}",
        )
        return False
    if cost is None:
        _refuse(
            draft,
            "CostUnknown",
            f"spec.limits.maxGpuHours is not set, and what the job will cost cannot be estimated; Budget {budget.name} needs one of them:"
            " write spec.limits.maxGpuHours",
        )
        return False
    return _is_approved(draft, budget, cost) and _is_funded(draft, budget, cost)


def _note(draft: Draft, cost: CostEstimate | None, budget: BudgetObject | None) -> None:
    if cost is not None and budget is not None and budget.currency == cost.currency:
        left = _available(draft, budget) - _wanted(draft, cost)
        cost = cost.model_copy(update={"balance_after": shown(left)})
    before = draft.status.estimate
    if cost is not None or (before is not None and before.cost is not None):
        draft.change(estimate=(before or Estimate()).model_copy(update={"cost": cost}))


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


def _is_funded(draft: Draft, budget: BudgetObject, cost: CostEstimate) -> bool:
    if is_granted(budget.status.shares.get(draft.job.uid), draft.job, cost):
        draft.condition(ConditionType.BALANCE_SUFFICIENT, "True", "Reserved", f"Budget {budget.name} has reserved {cost.high} for it.")
        return True
    available, wanted = _available(draft, budget), _wanted(draft, cost)
    if draft.job.uid not in budget.status.shares and len(budget.status.shares) >= MAX_SHARES:
        message = f"Budget {budget.name} keeps account of {MAX_SHARES} jobs: delete some of namespace {draft.job.namespace} that are over."
        draft.condition(ConditionType.BALANCE_SUFFICIENT, "False", "TooManyJobs", message)
        draft.show(Phase.AWAITING_BALANCE, "TooManyJobs", message)
        return False
    if available >= wanted:
        message = f"Budget {budget.name} is asked for {shown(wanted)} {cost.currency}."
        draft.condition(ConditionType.BALANCE_SUFFICIENT, "Unknown", "Asked", message)
        draft.show(Phase.AWAITING_BALANCE, "Asked", message)
        return False
    message = (
        f"It may cost {shown(wanted)} {cost.currency} more, and Budget {budget.name} has {shown(available)} that is neither used nor"
        f" reserved: kubectl finetune topup {shown(wanted - available)} -n {draft.job.namespace}."
    )
    before = find(draft.status.conditions, ConditionType.BALANCE_SUFFICIENT)
    draft.condition(ConditionType.BALANCE_SUFFICIENT, "False", BALANCE_TOO_LOW, message)
    if before is None or before.reason != BALANCE_TOO_LOW:
        draft.say(BALANCE_TOO_LOW, message, kind="Warning", key=f"{draft.status.run}/{cost.high}")
    draft.show(Phase.AWAITING_BALANCE, BALANCE_TOO_LOW, message)
    return False

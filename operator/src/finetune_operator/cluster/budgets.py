"""Reads and writes of Budgets: the one of a namespace, and all its jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from finetune_api.constants import BUDGET_NAME
from finetune_api.models.budget import BudgetStatus
from finetune_operator.cluster.apply import merge_patch, patch_status, stored_document
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.observe import find_budget
from finetune_operator.cluster.resources import BUDGETS, FINETUNE_JOBS
from finetune_operator.plan.funds import BudgetObserved, Used
from finetune_operator.plan.observed import BudgetObject, JobObject, Manifest


@dataclass(frozen=True, slots=True)
class BudgetKey:
    """Names the Budget of a namespace."""

    namespace: str

    def __str__(self) -> str:
        return f"{self.namespace}/budget/{BUDGET_NAME}"


async def observe_budget(client: Client, key: BudgetKey, farewells: Mapping[str, Used]) -> BudgetObserved | None:
    """Everything a decision on this Budget is made from; None when it is gone.

    The jobs are listed, not taken from the watch: one that has not been heard of yet must not pass for a deleted one. They are listed after
    the Budget was read: what is written is refused if somebody else wrote meanwhile.
    """
    budget = await find_budget(client, key.namespace)
    if budget is None:
        return None
    jobs = [JobObject.from_manifest(manifest) for manifest in await client.list(FINETUNE_JOBS, key.namespace, "")]
    return BudgetObserved(budget=budget, jobs=jobs, farewells=farewells)


async def write_budget_status(client: Client, budget: BudgetObject, status: BudgetStatus) -> bool:
    """Write what differs from the stored status, as :func:`patch_status` does. False: nothing differs."""
    patch = merge_patch(stored_document(budget.status), budget_status_document(status), budget.stored_status)
    return await patch_status(client, BUDGETS, budget, patch)


_ALWAYS = {"observed_generation", "credited", "settled", "reserved", "balance", "checkpoints", "checkpoints_reserved", "jobs"}


def budget_status_document(status: BudgetStatus) -> Manifest:
    """The status as stored: without what has its default, but for what columns, metrics and kstatus read."""
    compact = status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return {**compact, **status.model_dump(mode="json", by_alias=True, include=_ALWAYS)}

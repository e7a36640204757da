"""One Budget, once around: observe → plan → status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from finetune_operator.cluster.budgets import BudgetKey, observe_budget, write_budget_status
from finetune_operator.cluster.client import Client
from finetune_operator.plan.funds import Used, plan_budget
from finetune_operator.reconcile import NEVER, at_a_good_moment


class BudgetReconciler:
    """Keeps account of what the jobs of a namespace may cost, as far as one look goes."""

    def __init__(
        self,
        client: Client,
        *,
        now: Callable[[], datetime],
        farewells: Callable[[BudgetKey], Mapping[str, Used]] = lambda _key: {},
        forget: Callable[[BudgetKey], None] = lambda _key: None,
    ) -> None:
        """``farewells``: uid of deleted jobs of a namespace -> what they had used when they were last seen."""
        self._client = client
        self._now = now
        self._farewells = farewells
        self._forget = forget

    async def reconcile(self, key: BudgetKey) -> float | None:
        """Look at a Budget once. Returns None: when something happens; :data:`NEVER`: it is gone."""
        return await at_a_good_moment(self._once(key), {"budget": str(key)})

    async def _once(self, key: BudgetKey) -> float | None:
        observed = await observe_budget(self._client, key, self._farewells(key))
        if observed is None:
            self._forget(key)
            return NEVER
        await write_budget_status(self._client, observed.budget, plan_budget(observed, now=self._now()))
        return None

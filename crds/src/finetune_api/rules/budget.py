"""Rules for Budgets: one for a namespace, and what was given stays given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from finetune_api.constants import BUDGET_NAME
from finetune_api.problems import Problem
from finetune_api.rules.running import SchemaRule

BUDGET_NAMED = SchemaRule(
    id="budget-name",
    requirement="AA-03",
    cel=f"self.metadata.name == '{BUDGET_NAME}'",
    message=f"must be {BUDGET_NAME}: a namespace has one Budget, which all its jobs share",
)
"""On the whole object."""
APPEND_ONLY = SchemaRule(
    id="budget-append-only",
    requirement="O-10",
    cel="oldSelf.all(old, self.exists(one, one.at == old.at))",
    message="entries are only added, never taken away; create the Budget anew to begin at zero",
)
"""On ``spec.credits``, at updates."""
UNCHANGED = SchemaRule(
    id="budget-entry",
    requirement="O-10",
    cel="self == oldSelf",
    message="an entry stays as it is; add another one (kubectl finetune topup)",
)
"""On each entry of ``spec.credits``, at updates."""
SAME_CURRENCY = SchemaRule(
    id="budget-currency",
    requirement="OP-21",
    cel="self == oldSelf",
    message="stays as it is: amounts in two currencies cannot be added; create the Budget anew",
)
"""On ``spec.currency``, at updates."""


def check_budget(spec: Mapping[str, Any]) -> list[Problem]:
    """Rules that the spec of a Budget breaks by itself; the others compare it with what it was. The spec must fit its schema."""
    times = Counter(str(credit["at"]) for credit in spec["credits"])
    return [
        Problem("spec.credits[].at", at, f"{number} entries have this time; entries are told apart by it, so write another second")
        for at, number in times.items()
        if number > 1
    ]


def check_budget_name(name: str) -> list[Problem]:
    """Whether a Budget may have this name."""
    return [] if name == BUDGET_NAME else [Problem("metadata.name", name, BUDGET_NAMED.message)]

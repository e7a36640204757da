"""The Budget of a namespace, as people read it, and what a top-up adds to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from finetune_api.models.budget import AMOUNT_PATTERN, BudgetStatus
from finetune_api.pricing import from_rate_seconds, shown
from finetune_cli.errors import CliError
from finetune_cli.terminal import list_table


def added_credit(credit: Mapping[str, str]) -> list[dict[str, Any]]:
    """The JSON patch that adds an entry to ``spec.credits``."""
    return [{"op": "add", "path": "/spec/credits/-", "value": dict(credit)}]


def build_credit(amount: str, note: str | None, now: datetime) -> dict[str, str]:
    """An entry of ``spec.credits``.

    Raises:
        CliError: the amount is no decimal number, or has more than four places.
    """
    if not re.fullmatch(AMOUNT_PATTERN, amount):
        raise CliError(f"AMOUNT is {amount}; write a decimal number of at most four places, for example 250.00")
    at = now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"amount": amount, "at": at} | ({"note": note} if note else {})


def render_budget(manifest: Mapping[str, Any]) -> RenderableType:
    """Balance, and a row for each job that has used or reserved something; the dearest first."""
    status, spec = BudgetStatus.model_validate(manifest.get("status") or {}), manifest["spec"]
    currency = spec["currency"]
    free = Decimal(status.balance) - Decimal(status.reserved)
    head = (
        f"balance {status.balance} {currency} of {status.credited}; settled {status.settled}; reserved {status.reserved};"
        f" free for new jobs {shown(free)}"
    )
    quota = spec.get("checkpointQuota")
    written = f"checkpoints {status.checkpoints} of {quota} written; reserved {status.checkpoints_reserved};" if quota is not None else ""
    if quota is not None:
        written += f" free for new jobs {quota - status.checkpoints - status.checkpoints_reserved}"
    above = spec.get("approvalAbove")
    rule = f"jobs that may cost more than {above} {currency} wait for kubectl finetune approve" if above is not None else ""
    table = list_table()
    for column in ("JOB", "CHARGED", "RESERVED", "CHECKPOINTS"):
        table.add_column(column, no_wrap=True)
    for share in sorted(status.shares.values(), key=lambda share: (-Decimal(share.rate_seconds), share.name)):
        used = from_rate_seconds(share.rate_seconds)
        reserved = max(Decimal(0), Decimal(share.limit) - used) if share.limit is not None else Decimal(0)
        table.add_row(
            share.name, shown(used - from_rate_seconds(share.before)), shown(reserved), str(share.checkpoints - share.checkpoints_before)
        )
    closed = from_rate_seconds(status.closed_rate_seconds)
    if closed or status.closed_checkpoints:
        table.add_row("(deleted jobs)", shown(closed), shown(Decimal(0)), str(status.closed_checkpoints))
    return Group(*(Text(line) for line in (head, written, rule) if line), table)


def raised_quota(budget: Mapping[str, Any], more: int) -> list[dict[str, Any]]:
    """The JSON patch that adds to ``spec.checkpointQuota``; refused by the API server if somebody else changed it meanwhile.

    Raises:
        CliError: nothing is to be added, or there is no quota.
    """
    if more < 1:
        raise CliError(f"--checkpoints is {more}; write how many to add, at least 1")
    quota = budget["spec"].get("checkpointQuota")
    if quota is None:
        raise CliError(
            "the Budget has no spec.checkpointQuota: jobs may write any number of checkpoints", advice="set one with kubectl apply"
        )
    path = "/spec/checkpointQuota"
    return [{"op": "test", "path": path, "value": quota}, {"op": "replace", "path": path, "value": quota + more}]

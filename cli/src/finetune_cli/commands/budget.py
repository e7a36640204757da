"""budget, topup: what the jobs of a namespace may cost."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

import typer

from finetune_cli.access import Access
from finetune_cli.budgets import build_credit, render_budget
from finetune_cli.errors import CliError
from finetune_cli.options import Context, Kubeconfig, Namespace
from finetune_cli.terminal import list_console

_NONE = "kubectl apply one named default: https://finetune.dev/docs/how-to-budgets.md"


def budget(namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Show the Budget of a namespace: what is left, what is reserved, and what each job has cost."""
    access = Access(kubeconfig, context)
    where = namespace or access.namespace()
    found = access.connect().budget(where)
    if found is None:
        raise CliError(f"namespace {where} has no Budget: what jobs cost is metered and not limited", advice=_NONE)
    list_console().print(render_budget(found))


def topup(
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="How much to add, in the Budget's currency, for example 250.00.")],
    note: Annotated[str | None, typer.Option("--note", help="What for, or from whom; kept with the amount.")] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Add money to the Budget of a namespace. Jobs that wait for it start; those that were paused go on by a resume."""
    access = Access(kubeconfig, context)
    where = namespace or access.namespace()
    credit = build_credit(amount, note, datetime.now(UTC))
    changed = access.connect().credit(where, credit)
    list_console().print(f"{amount} {changed['spec']['currency']} added to the Budget of namespace {where}")

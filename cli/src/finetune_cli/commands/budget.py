"""budget, topup: what the jobs of a namespace may cost and write."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, NoReturn

import typer

from finetune_cli.access import Access
from finetune_cli.budgets import added_credit, build_credit, raised_quota, render_budget
from finetune_cli.errors import CliError
from finetune_cli.options import Context, Kubeconfig, Namespace
from finetune_cli.terminal import list_console

_NONE = "kubectl apply one named default: https://finetune.dev/docs/how-to-budgets.md"


def budget(namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Show the Budget of a namespace: what is left, what is reserved, and what each job has cost and written."""
    access = Access(kubeconfig, context)
    where = namespace or access.namespace()
    found = access.connect().budget(where)
    list_console().print(render_budget(found or _no_budget(where)))


def _no_budget(namespace: str) -> NoReturn:
    raise CliError(f"namespace {namespace} has no Budget: what jobs cost and write is metered and not limited", advice=_NONE)


def topup(
    amount: Annotated[
        str | None, typer.Argument(metavar="[AMOUNT]", help="How much to add, in the Budget's currency, for example 250.00.")
    ] = None,
    checkpoints: Annotated[int | None, typer.Option("--checkpoints", help="Raise spec.checkpointQuota by so many.")] = None,
    note: Annotated[str | None, typer.Option("--note", help="What for, or from whom; kept with the amount.")] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Add money or checkpoints to the Budget of a namespace. Jobs that wait for it start; those that were paused go on by a resume."""
    if amount is None and checkpoints is None:
        raise CliError("nothing to add; write AMOUNT, or --checkpoints NUMBER")
    access = Access(kubeconfig, context)
    where = namespace or access.namespace()
    patch = added_credit(build_credit(amount, note, datetime.now(UTC))) if amount is not None else []
    cluster = access.connect()
    if checkpoints is not None:
        patch += raised_quota(cluster.budget(where) or _no_budget(where), checkpoints)
    changed = cluster.top_up(where, patch)["spec"]
    if amount is not None:
        list_console().print(f"{amount} {changed['currency']} added to the Budget of namespace {where}")
    if checkpoints is not None:
        list_console().print(f"the Budget of namespace {where} now has a quota of {changed['checkpointQuota']} checkpoints")

"""evaluate: what checkpoints of a job are worth, measured again or on other rows."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from finetune_api.models.status import CheckpointStatus, Phase
from finetune_cli.errors import CliError
from finetune_cli.evaluation import build_evaluation, choose_checkpoints
from finetune_cli.job import Job
from finetune_cli.options import Context, Kubeconfig, Name, Namespace, open_target
from finetune_cli.terminal import list_table
from finetune_cli.watch import follow_job


def evaluate(
    name: Name,
    checkpoint: Annotated[
        list[int] | None, typer.Option("--checkpoint", help="Step of a checkpoint; repeatable. Default: all that can be resumed.", min=1)
    ] = None,
    eval_uri: Annotated[str | None, typer.Option(help="Evaluate on these rows instead of the job's own.", metavar="URI")] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Evaluate checkpoints and compare them. Each becomes a FineTuneJob of its own, which trains nothing and is made once."""
    cluster, ref = open_target(name, namespace, kubeconfig, context)
    job, console = cluster.job(ref), Console()
    asked = [(found, build_evaluation(job, found, eval_uri)) for found in choose_checkpoints(job, checkpoint or [])]
    running = [(found, cluster.create(manifest)) for found, manifest in asked]
    ended = [(found, follow_job(cluster.follow(started.ref), console)) for found, started in running]
    console.print(render_evaluations(ended))
    failed = [done for _, done in ended if done.phase is not Phase.SUCCEEDED]
    if failed:
        raise CliError(
            f"{failed[0].ref} is {failed[0].phase}", advice=f"kubectl finetune describe {failed[0].ref.name} -n {failed[0].ref.namespace}"
        )
    silent = [done for _, done in ended if done.status.artifacts.eval_loss is None]
    if silent:
        raise CliError(
            f"{silent[0].ref} has ended without an evaluation loss: it found no rows to evaluate on, or its last report was lost",
            advice=f"kubectl finetune logs {silent[0].ref.name} -n {silent[0].ref.namespace}; or name rows with --eval-uri.",
        )


def render_evaluations(ended: list[tuple[CheckpointStatus, Job]]) -> Table:
    """One row per checkpoint; the lowest loss stands out."""
    losses = {found.step: job.status.artifacts.eval_loss for found, job in ended}
    known = [loss for loss in losses.values() if loss is not None]
    table = list_table()
    for column in ("checkpoint", "evaluation loss", "during training", "job"):
        table.add_column(column, overflow="fold")
    for found, job in ended:
        loss = losses[found.step]
        style = "bold green" if loss is not None and loss == min(known) else ""
        table.add_row(f"checkpoint-{found.step}", _shown(loss), _shown(found.eval_loss), job.ref.name, style=style)
    return table


def _shown(loss: float | None) -> str:
    return "" if loss is None else f"{loss:.6g}"

"""watch, describe, curve: looking at a job."""

from __future__ import annotations

import os
from typing import Annotated

import typer
from rich.console import Console

from finetune_api.models.status import Phase
from finetune_cli.curve import Curve, draw_curve, read_curve, summarise_curve
from finetune_cli.describe import render_job
from finetune_cli.errors import CliError
from finetune_cli.options import Context, Kubeconfig, Name, Namespace, open_target
from finetune_cli.store import job_store, open_store
from finetune_cli.view import render_summary
from finetune_cli.watch import follow_job


def watch(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Follow a job, through pauses too, until it succeeds, fails or is cancelled. Ctrl-C ends the watching only."""
    cluster, ref = open_target(name, namespace, kubeconfig, context)
    console = Console()
    ended = follow_job(cluster.follow(ref), console)
    console.print(render_summary(ended))
    if ended.phase is not Phase.SUCCEEDED:
        raise typer.Exit(1)


def describe(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Show a job: progress, failure and advice, checkpoints, attempts, conditions, and what to do next."""
    cluster, ref = open_target(name, namespace, kubeconfig, context)
    Console().print(render_job(cluster.job(ref)))


def curve(
    name: Annotated[str | None, typer.Argument(help="Name of the FineTuneJob; not needed with --uri.", metavar="[NAME]")] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    uri: Annotated[
        str | None, typer.Option(help="Read this store instead: file:///dir, or s3://bucket/prefix with AWS_* variables set.")
    ] = None,
) -> None:
    """Draw the loss curve of a job in the terminal, with the steps at which it was resumed."""
    if uri is not None:
        print_curve(read_curve(open_store(uri, os.environ)), Console())
    elif name is not None:
        cluster, ref = open_target(name, namespace, kubeconfig, context)
        with job_store(cluster.job(ref), cluster) as store:
            print_curve(read_curve(store), Console())
    else:
        raise CliError("name a job, or a store with --uri")


def print_curve(losses: Curve, console: Console) -> None:
    """Draw as wide as the terminal is."""
    console.out(draw_curve(losses, console.width, color=console.is_terminal and not console.no_color), highlight=False)
    console.print(summarise_curve(losses), soft_wrap=True)

"""watch, describe, logs, curve, models, gpus, datasets, doctor: looking at a job, at what there is to start from, and whether it can."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from finetune_api.models.status import Phase
from finetune_cli.access import Access
from finetune_cli.curve import Curve, draw_curve, read_curve, summarise_curve
from finetune_cli.datasets import is_ready, render_datasets
from finetune_cli.describe import render_job
from finetune_cli.doctor import Verdict, examine, render_findings
from finetune_cli.errors import CliError
from finetune_cli.gpus import render_gpus, supply_of
from finetune_cli.logs import archived_lines, is_live, live_lines, of_rank
from finetune_cli.models import may_be_trained, render_models
from finetune_cli.options import Context, Kubeconfig, Name, Namespace, open_target
from finetune_cli.store import job_store, open_store
from finetune_cli.terminal import list_console
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


def logs(  # noqa: PLR0913, PLR0917  # the options of a command
    name: Name,
    attempt: Annotated[
        int | None, typer.Option(min=1, help="Of this attempt. Default: the pods that are there, else the last attempt.")
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with new lines until the pods end.")] = False,
    rank: Annotated[int | None, typer.Option(min=0, help="What this rank printed only.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.", metavar="FILE")] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show what a job's pods print, also of attempts whose pods are gone."""
    cluster, ref = open_target(name, namespace, kubeconfig, context)
    job = cluster.job(ref)
    if is_live(job, attempt):
        _show(live_lines(job, cluster.access, follow=follow), rank, output)
    elif follow:
        raise CliError(
            f"{ref} has no pods of this attempt to follow; its phase is {job.phase}", advice="Without --follow the archive is read."
        )
    else:
        with job_store(job, cluster) as store:
            _show(archived_lines(store, attempt), rank, output)


def _show(lines: Iterator[str], rank: int | None, output: Path | None) -> None:
    """Print lines, as they come, or write them to a file."""
    with nullcontext(sys.stdout) if output is None else output.open("w", encoding="utf-8") as file:
        for line in lines if rank is None else of_rank(lines, rank):
            print(line, file=file, flush=True)


def models(
    eligible: Annotated[bool, typer.Option("--eligible", help="Only those that new jobs may train: eligible and deployed.")] = False,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """List the models that jobs may start from (model.uri: ref:NAME), with what their weights take of a GPU."""
    found = Access(kubeconfig, context).connect().base_models()
    if not found:
        raise CliError("the cluster has no BaseModels", advice="The chart brings nine (baseModels.install), or apply one of your own.")
    shown = [each for each in found if may_be_trained(each)] if eligible else found
    if not shown:
        raise CliError(
            "no BaseModel of the cluster is eligible and deployed", advice="kubectl finetune models says which of the two each lacks."
        )
    list_console().print(render_models(shown))


def gpus(kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """List the GPUs that jobs may train on (resources.gpuType: NAME): memory, price, and how many there are and are free."""
    cluster = Access(kubeconfig, context).connect()
    found = cluster.gpu_types()
    if not found:
        raise CliError("the cluster has no GpuTypes", advice="The chart brings six (gpuTypes.install), or apply one of your own.")
    seen = cluster.nodes_and_pods()
    supplies = {each["metadata"]["name"]: supply_of(each["spec"], *seen) for each in found} if seen is not None else None
    list_console().print(render_gpus(found, supplies))
    if supplies is None:
        Console(stderr=True).print("TOTAL and FREE are not known: you may not list the nodes and pods of the cluster.", style="yellow")


def datasets(
    ready: Annotated[bool, typer.Option("--ready", help="Only those that jobs may use now.")] = False,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """List the Datasets that jobs may train on (dataset.uri: ref:NAME), and what keeps others from being ready."""
    access = Access(kubeconfig, context)
    where = namespace or access.namespace()
    found = [each for each in access.connect().datasets(where) if not ready or is_ready(each)]
    if not found:
        raise CliError(
            f"namespace {where} has no {'Dataset that is ready' if ready else 'Datasets'}",
            advice="Make one of a file with kubectl finetune dataset upload FILE --name NAME.",
        )
    list_console().print(render_datasets(found))


def doctor(namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None) -> None:
    """Check whether jobs can run in a namespace: CRDs, operator, GPUs, rights, store, presets. Exit code 1 if they cannot."""
    access = Access(kubeconfig, context)
    found = list(examine(access.connect().ask, namespace or access.namespace(), version("finetune-cli")))
    list_console().print(render_findings(found))
    if any(each.verdict is Verdict.FAIL for each in found):
        raise typer.Exit(1)


def print_curve(losses: Curve, console: Console) -> None:
    """Draw as wide as the terminal is."""
    console.out(draw_curve(losses, console.width, color=console.is_terminal and not console.no_color), highlight=False)
    console.print(summarise_curve(losses), soft_wrap=True)

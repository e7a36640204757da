"""pause, resume, stop, cancel, retry, approve, export, checkpoint, promote: changing what a job does."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from typing import Annotated

import typer
from rich.console import Console

from finetune_api.models.sources import RESUME_PATTERN
from finetune_api.models.status import Phase
from finetune_cli.actions import (
    ExportFormat,
    Patch,
    build_approve,
    build_cancel,
    build_checkpoint,
    build_export,
    build_pause,
    build_promote,
    build_resume,
    build_retry,
    build_stop,
    checkpoint_uri,
)
from finetune_cli.commands.results import render_artifacts
from finetune_cli.errors import CliError
from finetune_cli.job import Job, JobRef
from finetune_cli.options import Context, Kubeconfig, Name, Namespace, Target, open_target
from finetune_cli.waiting import UNDER_WAY, CheckpointTaken, ExportEnded, PhaseReached
from finetune_cli.watch import Until, follow_job

Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job until it is done.")]
Build = Callable[[Job], Patch]
Done = Callable[[Job, Job, Patch], Until]
"""(before, patched, patch) -> whether it is done."""


def pause(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None, wait: Wait = True) -> None:
    """Pause: the pods go when a checkpoint of the current step is complete in the store. Sets spec.suspend."""
    _change(open_target(name, namespace, kubeconfig, context), build_pause, _until(Phase.PAUSED), wait=wait)


def resume(
    name: Name,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    wait: Wait = True,
    source: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="CHECKPOINT",
            help="Where to start: latest, checkpoint-500, a URI, another job's name, or name/checkpoint-500. Sets checkpoint.resumeFrom.",
        ),
    ] = None,
) -> None:
    """Go on after a pause or a stop, whichever way it came about. After a pause by a limit: raise the limit first."""
    target = open_target(name, namespace, kubeconfig, context)
    wish = _checkpoint_source(target, source) if source is not None else None
    _change(target, lambda job: build_resume(job, new_token(), wish), _until(*UNDER_WAY), wait=wait)


def stop(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None, wait: Wait = True) -> None:
    """Stop: like a pause, and the spec may be edited before the job goes on. Sets spec.desiredState."""
    _change(open_target(name, namespace, kubeconfig, context), build_stop, _until(Phase.STOPPED), wait=wait)


def cancel(
    name: Name,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    wait: Wait = True,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """End a job for good; its checkpoints stay. This can never be undone."""
    if not yes:
        typer.confirm(f"A cancelled job can never go on. Cancel {name}?", abort=True)
    _change(open_target(name, namespace, kubeconfig, context), build_cancel, _until(Phase.CANCELLED), wait=wait)


def retry(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None, wait: Wait = True) -> None:
    """Start a failed job again, from its newest complete checkpoint; of one that has succeeded, export its results again."""
    _change(open_target(name, namespace, kubeconfig, context), lambda job: build_retry(job, new_token()), _until(*UNDER_WAY), wait=wait)


def approve(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None, wait: Wait = True) -> None:
    """Let a job start that may cost more than its namespace's Budget lets start by itself (phase AwaitingApproval)."""
    target = open_target(name, namespace, kubeconfig, context)
    _change(target, lambda job: build_approve(job, new_token()), _until(*UNDER_WAY, Phase.AWAITING_BALANCE), wait=wait)


def export(
    name: Name,
    formats: Annotated[
        list[ExportFormat] | None,
        typer.Option("--format", help="Make this too; sets it in spec.output. Repeatable. Default: what spec.output names."),
    ] = None,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    wait: Wait = True,
) -> None:
    """Make the outputs of a job that has succeeded: merged model, GGUF files, push. What is complete in the store is not made again."""
    target = open_target(name, namespace, kubeconfig, context)
    ended = _change(
        target,
        lambda job: build_export(job, new_token(), formats or ()),
        lambda before, _patched, patch: ExportEnded(before, patch),
        wait=wait,
    )
    if ended is not None:
        Console().print(render_artifacts(ended))


def checkpoint(name: Name, namespace: Namespace = None, kubeconfig: Kubeconfig = None, context: Context = None, wait: Wait = True) -> None:
    """Save a checkpoint now and go on training."""
    target = open_target(name, namespace, kubeconfig, context)
    _change(target, lambda job: build_checkpoint(job, new_token()), lambda before, _patched, _patch: CheckpointTaken(before), wait=wait)


def promote(
    name: Name,
    namespace: Namespace = None,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
    model: Annotated[str, typer.Option("--as", help="What it became; noted with the job.")] = "kept",
) -> None:
    """Keep what a cancelled job wrote beyond output.retentionDays."""
    target = open_target(name, namespace, kubeconfig, context)
    _change(target, lambda job: build_promote(job, model), _until(Phase.CANCELLED), wait=False)


def _checkpoint_source(target: Target, text: str) -> str:
    """``spec.checkpoint.resumeFrom`` for what a person wrote; another job's name becomes the address of its checkpoint."""
    if re.fullmatch(RESUME_PATTERN, text):
        return text
    other, _, step = text.partition("/")
    if step and not re.fullmatch(r"checkpoint-[0-9]+", step):
        raise CliError(f"--from {text}: write latest, checkpoint-500, a URI, another job's name, or name/checkpoint-500")
    cluster, ref = target
    return checkpoint_uri(cluster.job(JobRef(other, ref.namespace)), int(step.removeprefix("checkpoint-")) if step else None)


def new_token() -> str:
    """A token no request had before; each token acts once."""
    return secrets.token_hex(4)


def _until(*phases: Phase) -> Done:
    return lambda before, patched, patch: PhaseReached(before, patched, patch, frozenset(phases))


def _change(target: Target, build: Build, done: Done, *, wait: bool) -> Job | None:
    """Patch a job and, if asked, follow it until the operator has done what the patch says; return the job as it is then."""
    cluster, ref = target
    before = cluster.job(ref)
    patch = build(before)
    patched = cluster.patch(ref, patch)
    return follow_job(cluster.follow(ref), Console(), until=done(before, patched, patch), after=before) if wait else None

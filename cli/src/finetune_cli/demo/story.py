"""Why the demo failed: what a person would look at next, gathered in one place."""

from __future__ import annotations

from contextlib import suppress

from rich.console import Console

from finetune_api.constants import LABEL_JOB
from finetune_cli.demo.scene import SYSTEM_NAMESPACE
from finetune_cli.demo.shell import Shell
from finetune_cli.describe import render_job
from finetune_cli.errors import CliError
from finetune_cli.job import Job, JobRef

LOOK_SECONDS = 60
LINES = 40


def tell_story(ref: JobRef, job: Job | None, shell: Shell, console: Console) -> None:
    """Show the job, its pods, their last lines, the events and the operator's last lines; each as far as it can be had."""
    if job is not None:
        console.print(render_job(job))
    selector = f"{LABEL_JOB}={ref.name}"
    at, system = ("--namespace", ref.namespace), ("--namespace", SYSTEM_NAMESPACE)
    for command in (
        *([("kubectl", "describe", "finetunejob", ref.name, *at)] if job is None else []),
        ("kubectl", "describe", "pods", "-l", selector, *at),
        ("kubectl", "logs", "-l", selector, f"--tail={LINES}", "--prefix", *at),
        ("kubectl", "get", "events", "--sort-by=.lastTimestamp", *at),
        ("kubectl", "get", "pods", *system),
        ("kubectl", "get", "events", "--sort-by=.lastTimestamp", *system),
        ("kubectl", "logs", "-l", "app.kubernetes.io/component=operator", f"--tail={LINES}", *system),
    ):
        with suppress(CliError):
            shell.run(*command, timeout_seconds=LOOK_SECONDS)

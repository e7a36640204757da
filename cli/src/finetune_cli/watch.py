"""Following a job: a live bar on a terminal, one line per change anywhere else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

from finetune_api.models.status import FINAL_PHASES, Phase
from finetune_cli.errors import CliError
from finetune_cli.job import Job, where_it_is
from finetune_cli.view import describe_changes, progress_line, render_bar

REFRESHES_PER_SECOND = 4
Until = Callable[[Job], bool]


def has_ended(job: Job) -> bool:
    """Whether there is nothing more to follow: succeeded, cancelled or failed. A pause is no end."""
    return job.phase in FINAL_PHASES or job.phase is Phase.FAILED


def follow_job(
    jobs: Iterator[Job],
    console: Console,
    *,
    until: Until = has_ended,
    after: Job | None = None,
    clock: Callable[[], datetime] = datetime.now,
) -> Job:
    """Show a job until a condition holds; return the observation in which it does.

    Args:
        jobs: Observations, newest last.
        console: Where to show it. On a terminal a live bar stays below the lines of what happened.
        until: The condition, by default the end of the job.
        after: The last observation already shown; what happened before it is not told again.
        clock: Local time of the lines.
    """
    previous = after
    with Live(console=console, refresh_per_second=REFRESHES_PER_SECOND, transient=True, auto_refresh=console.is_terminal) as live:
        for job in jobs:
            lines = describe_changes(previous, job)
            if console.is_terminal:
                live.update(render_bar(job))
            elif figures := progress_line(previous, job):
                lines.append(figures)
            for line in lines:
                console.print(_stamped(line, clock()), soft_wrap=True)
            if until(job):
                return job
            previous = job
    raise CliError("the job can no longer be followed" + (f"; {where_it_is(previous)}" if previous else ""))


def _stamped(line: Text, at: datetime) -> Text:
    return Text.assemble((f"{at:%H:%M:%S}  ", "dim"), line)

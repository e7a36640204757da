"""What a followed job looks like: the bar, and the lines that say what changed."""

from __future__ import annotations

from rich.console import RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from finetune_api.models.status import RESTING_PHASES, FineTuneJobStatus, Phase, StatusProgress
from finetune_cli.job import Job
from finetune_cli.terminal import PHASE_STYLE, format_bytes, format_duration, format_rate

BAR_WIDTH = 24
PERCENT_STEP = 5
"""Without a live bar, progress is a line at each of these."""

SELF_EXPLAINING = frozenset({Phase.TRAINING, Phase.EVALUATING, Phase.EXPORTING, Phase.SUCCEEDED})
"""Phases whose reason adds nothing."""


def render_bar(job: Job) -> RenderableType:
    """Phase, bar, step, loss, speed, time left, newest checkpoint, attempts; in one line."""
    status = job.status
    progress = status.progress or StatusProgress()
    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(no_wrap=True, min_width=10)
    row.add_column(no_wrap=True)
    row.add_column(overflow="ellipsis")
    bar = ProgressBar(total=max(progress.total_steps, 1), completed=progress.step, width=BAR_WIDTH, pulse=_is_pulsing(status, progress))
    row.add_row(render_phase(status), bar, Text("  ".join(_figures(status, progress))))
    return row


def render_phase(status: FineTuneJobStatus) -> Text:
    """The phase in its colour, with the reason where a phase alone says little."""
    text = Text(status.phase.value, style=PHASE_STYLE[status.phase])
    if status.reason and status.reason != status.phase and status.phase not in SELF_EXPLAINING:
        text.append(f" ({status.reason})")
    return text


def describe_changes(before: Job | None, now: Job) -> list[Text]:
    """Lines for what happened between two observations: phases, attempts, checkpoints. Progress is not among them."""
    old = before.status if before is not None else FineTuneJobStatus()
    lines: list[Text] = []
    new = now.status
    attempt = new.attempts[-1] if new.attempts else None
    known = old.attempts[-1].attempt if old.attempts else None
    if attempt is not None and attempt.attempt is not None and attempt.attempt != known:
        lines.append(Text(f"attempt {attempt.attempt} from step {attempt.from_step} ({attempt.reason})"))
        if attempt.lost_steps:
            lines.append(
                Text(f"{attempt.lost_steps} steps are trained again: they came after the last complete checkpoint", style="yellow")
            )
    if new.checkpoints.latest and new.checkpoints.latest != old.checkpoints.latest:
        latest = new.checkpoints.latest
        lines.append(Text(f"checkpoint of step {latest.step} complete ({latest.trigger}, {format_bytes(latest.size_bytes)})", style="cyan"))
    if before is None or render_phase(new).plain != render_phase(old).plain:
        lines.append(Text.assemble(render_phase(new), _phase_detail(now)))
    return lines


def progress_line(before: Job | None, now: Job) -> Text | None:
    """A line of figures whenever another :data:`PERCENT_STEP` percent are done or a first loss is known; None in between."""
    progress = now.status.progress
    if progress is None or progress.total_steps == 0 or now.phase in RESTING_PHASES:
        return None
    earlier = before.status.progress if before is not None else None
    if earlier is not None and earlier.total_steps and earlier.percent // PERCENT_STEP == progress.percent // PERCENT_STEP:
        return None
    return Text("  ".join((now.phase.value, *_figures(now.status, progress))))


def render_summary(job: Job) -> Text:
    """How a job ended."""
    status = job.status
    if status.phase is Phase.FAILED and status.failure is not None:
        failure = status.failure
        text = Text.assemble((f"Failed: {failure.failure_class}", "bold red"), f"\n{failure.message}")
        if failure.last_log_lines:
            text.append(f"\n{failure.last_log_lines.rstrip()}", style="dim")
        return text.append(f"\n{failure.advice}", style="yellow") if failure.advice else text
    if status.phase is Phase.SUCCEEDED:
        progress = status.progress or StatusProgress()
        text = Text.assemble(("Succeeded", "bold green"), f" after {progress.step} steps")
        if progress.loss is not None:
            text.append(f", loss {progress.loss:.4f}")
        text.append(f", attempts {status.attempt_count}, steps trained again {status.usage.lost_steps}")
        return text.append(f"\n{status.artifacts.final_uri}") if status.artifacts.final_uri else text
    return Text.assemble(render_phase(status))


def _figures(status: FineTuneJobStatus, progress: StatusProgress) -> list[str]:
    figures = [f"{progress.step}/{progress.total_steps or '?'}", f"{progress.percent}%"]
    if progress.loss is not None:
        figures.append(f"loss {progress.loss:.4f}")
    if progress.eval_loss is not None:
        figures.append(f"eval {progress.eval_loss:.4f}")
    if progress.tokens_per_second is not None and status.phase not in RESTING_PHASES:
        figures.append(format_rate(progress.tokens_per_second))
    if progress.eta_seconds is not None and status.phase not in RESTING_PHASES:
        figures.append(f"ETA {format_duration(progress.eta_seconds)}")
    if status.checkpoints.latest is not None:
        figures.append(f"checkpoint {status.checkpoints.latest.step}")
    if status.attempt_count > 1:
        figures.append(f"attempt {status.attempt_count}")
    return figures


def _phase_detail(job: Job) -> str:
    """What a person wants to know when a phase begins."""
    status = job.status
    progress = status.progress or StatusProgress()
    match status.phase:
        case Phase.PAUSED | Phase.STOPPED:
            latest = status.checkpoints.latest
            kept = f"checkpoint of step {latest.step} is complete" if latest else "nothing was trained yet"
            return f" at step {progress.step}: {kept}, {status.replicas} pods"
        case Phase.TRAINING if progress.step:
            return f" from step {progress.step} of {progress.total_steps or '?'}"
        case Phase.STARTING | Phase.RESUMING:
            return f" run {status.run}"
        case _:
            return ""


def _is_pulsing(status: FineTuneJobStatus, progress: StatusProgress) -> bool:
    return progress.total_steps == 0 and status.phase not in RESTING_PHASES

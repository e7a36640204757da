"""The story of a job on one screen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from finetune_api.constants import BALANCE_EXHAUSTED
from finetune_api.models.estimate import CheckpointEstimate, CostEstimate, MemoryEstimate, TrainingEstimate
from finetune_api.models.status import AttemptStatus, CheckpointStatus, Condition, ConditionType, FailureStatus, Phase, UsageStatus
from finetune_api.resolve import flatten
from finetune_cli.job import Job
from finetune_cli.terminal import format_bytes, format_duration
from finetune_cli.view import render_bar, render_phase

GOOD_WHEN_FALSE = frozenset({"Reconciling", "Stalled", "Suspended", "Failed", "ExportFailed"})
"""Condition types whose True asks for attention, or at least is no good news."""

GIB = 2**30
_SHOWN_ABOVE = frozenset({"model.uri", "dataset.uri", "replicas"})
"""Fields of a job that the head of its description has."""


def render_job(job: Job) -> RenderableType:
    """Everything a person needs to know of a job, most important first."""
    status = job.status
    parts: list[RenderableType] = [_render_head(job), Text(), render_bar(job)]
    if status.failure is not None and job.phase is Phase.FAILED:
        parts.append(_render_failure(status.failure))
    parts += [Text(), _render_configuration(job)]
    if status.checkpoints.recent:
        best = status.checkpoints.best
        parts += [Text(), _render_checkpoints(status.checkpoints.recent, best.step if best else None, status.output_uri or "")]
    if status.attempts:
        parts += [Text(), _render_attempts(status.attempts)]
    if status.conditions:
        parts += [Text(), _render_conditions(status.conditions)]
    parts += [Text(), _render_usage(status.usage), Text(), Text(f"Next: {next_step(job)}", style="bold")]
    return Group(*parts)


def next_step(job: Job) -> str:
    """The command a person most likely wants now."""
    name = f"{job.ref.name} -n {job.ref.namespace}"
    match job.phase:
        case Phase.PAUSED if job.status.hold is not None:
            return f"{_mend(job)}, then kubectl finetune resume {name}"
        case Phase.AWAITING_APPROVAL:
            return f"kubectl finetune approve {name}"
        case Phase.PAUSED | Phase.STOPPED:
            return f"kubectl finetune resume {name}"
        case Phase.FAILED:
            return f"follow the advice above, then kubectl finetune retry {name}"
        case Phase.SUCCEEDED if job.status.export is not None and job.status.export.state == "Failed":
            return f"follow the advice of ExportFailed, then kubectl finetune retry {name}"
        case Phase.SUCCEEDED if job.status.artifacts.outputs:
            return f"kubectl finetune artifacts {name}"
        case Phase.SUCCEEDED:
            return f"kubectl finetune curve {name}"
        case Phase.CANCELLED if job.status.artifacts_expire_at is not None and job.status.artifacts_removed_at is None:
            return f"kubectl finetune promote {name}, or what it wrote is removed at {job.status.artifacts_expire_at}"
        case Phase.CANCELLED:
            return f"kubectl delete finetunejob {name}"
        case _:
            return _mend(job) if job.phase is Phase.AWAITING_BALANCE else f"kubectl finetune watch {name}"


def _mend(job: Job) -> str:
    """What ends the wait of a job that its limits or its Budget hold."""
    limited = job.status.hold is not None and job.status.hold.reason != BALANCE_EXHAUSTED
    if limited:
        return "raise spec.limits"
    what = "--checkpoints NUMBER" if "checkpointQuota" in _why(job) else "AMOUNT"
    return f"kubectl finetune topup {what} -n {job.ref.namespace}"


def _why(job: Job) -> str:
    """What a job waits for: in its pause, or before its start."""
    waits = next((c.message for c in job.status.conditions if c.type == ConditionType.BALANCE_SUFFICIENT and c.status == "False"), "")
    return job.status.hold.message if job.status.hold is not None else waits


def _render_head(job: Job) -> Table:
    status, spec = job.status, job.spec
    head = Table.grid(padding=(0, 3, 0, 0))
    head.add_column(no_wrap=True)
    head.add_column(overflow="fold")
    head.add_row("Job", Text(f"{job.ref.name} (namespace {job.ref.namespace})", style="bold"))
    head.add_row("Phase", render_phase(status))
    head.add_row("Model", str(spec.get("model", {}).get("uri", "")))
    head.add_row("Dataset", str(spec.get("dataset", {}).get("uri", "")))
    head.add_row("Training", _training_summary(job))
    gpus = f", {status.gpus} GPUs asked for" if status.gpus else ""
    head.add_row("Pods", f"{status.replicas} of {spec.get('replicas', 1)}{gpus}")
    if status.estimate is not None and status.estimate.memory is not None:
        head.add_row("Memory", _memory(status.estimate.memory))
    if status.estimate is not None and status.estimate.training is not None:
        head.add_row("Length", _length(status.estimate.training))
    if status.estimate is not None and status.estimate.cost is not None:
        head.add_row("Cost", _cost(status.estimate.cost))
    if status.estimate is not None and status.estimate.checkpoint is not None:
        head.add_row("Checkpoint", _checkpoint(status.estimate.checkpoint))
    if status.output_uri:
        head.add_row("Output", status.output_uri)
    if status.artifacts.final_uri:
        head.add_row("Result", Text(status.artifacts.final_uri, style="green"))
    for output in status.artifacts.outputs:
        head.add_row(output.name or output.type, Text(output.uri, style="green"))
    if status.dashboard_url:
        head.add_row("Dashboard", status.dashboard_url)
    return head


def _render_configuration(job: Job) -> RenderableType:
    """Every value the job runs with (A-08): those that somebody chose in a table, the defaults in a line below it."""
    table = _table("Configuration", "field", "value", "set by")
    for path, value in flatten(job.spec).items():
        if path not in _SHOWN_ABOVE:
            table.add_row(path, value if isinstance(value, str) else json.dumps(value), "job")
    defaults = []
    for path, resolved in job.status.resolved.items():
        if resolved.source == "default":
            defaults.append(f"{path}={resolved.value}")
        else:
            who = f"{resolved.source} {resolved.name}" if resolved.name else resolved.source
            table.add_row(path, resolved.value, f"{who}: {resolved.reason}" if resolved.reason else who)
    return Group(table, Text(f"Defaults: {', '.join(defaults)}", style="dim")) if defaults else table


def _memory(estimate: MemoryEstimate) -> str:
    """What a GPU must hold, as preflight estimated it."""
    of_gpu = f" of {estimate.gpu_bytes / GIB:.1f}" if estimate.gpu_bytes is not None else ""
    base = ", 4-bit base" if estimate.quantization == "4bit" else ""
    modules = f": {estimate.target_modules.replace(',', ', ')}" if estimate.target_modules else ""
    return (
        f"about {estimate.total_bytes / GIB:.1f}{of_gpu} GiB per GPU ({estimate.strategy}{base}); "
        f"{estimate.trainable_parameters:,} of {estimate.parameters:,} parameters train{modules}"
    )


def _length(estimate: TrainingEstimate) -> str:
    """How long the training was estimated to be, and what its checkpoints take."""
    parts = [f"{estimate.steps} optimizer steps (training.{'maxSteps' if estimate.stop_by == 'steps' else 'epochs'})"]
    if estimate.checkpoints is not None:
        size = f" of {format_bytes(estimate.checkpoint_bytes)}" if estimate.checkpoint_bytes is not None else ""
        stored = f", {format_bytes(estimate.store_bytes)} in the store at the end" if estimate.store_bytes is not None else ""
        parts.append(f"{estimate.checkpoints} checkpoints{size}{stored}")
    return ", ".join(parts)


def _cost(estimate: CostEstimate) -> str:
    """What the job was estimated to cost in all, and what that leaves of the Budget at worst."""
    left = f"; leaves {estimate.balance_after} of the Budget at worst" if estimate.balance_after is not None else ""
    return f"estimated {estimate.low} to {estimate.high} {estimate.currency}{left}"


def _checkpoint(estimate: CheckpointEstimate) -> str:
    """How long a checkpoint was estimated to take."""
    seconds = format_duration(estimate.save_seconds + estimate.upload_seconds)
    return f"{format_bytes(estimate.size_bytes)}, about {seconds} to save and upload at {format_bytes(estimate.upload_bytes_per_second)}/s"


def _training_summary(job: Job) -> str:
    def value(path: str) -> str:
        node: Any = job.spec
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        resolved = job.status.resolved.get(path)
        return str(node) if node is not None else resolved.value if resolved else "?"

    own = value("methodRef.name")
    method = value("method") if own == "?" else f"TrainingMethod {own}"
    return f"{method}, {value('adapter.type')}, batch {value('training.batchSize')} x {value('training.gradAccumSteps')}"


def _render_failure(failure: FailureStatus) -> Panel:
    body = Text(failure.message)
    if failure.exit_code is not None:
        body.append(f"\nexit code {failure.exit_code}" + (f", rank {failure.failed_rank}" if failure.failed_rank is not None else ""))
    if failure.last_log_lines:
        body.append(f"\n\n{failure.last_log_lines.rstrip()}", style="dim")
    if failure.advice:
        body.append(f"\n\n{failure.advice}", style="yellow")
    return Panel(body, title=failure.failure_class.value, border_style="red", title_align="left")


def _render_checkpoints(checkpoints: list[CheckpointStatus], best_step: int | None, output: str) -> Table:
    table = _table("Checkpoints", "step", "attempt", "why", "size", "eval loss", "resumable", "below the output")
    for checkpoint in reversed(checkpoints):
        table.add_row(
            f"{checkpoint.step}{' (best)' if checkpoint.step == best_step else ''}",
            str(checkpoint.attempt),
            checkpoint.trigger,
            format_bytes(checkpoint.size_bytes),
            "" if checkpoint.eval_loss is None else f"{checkpoint.eval_loss:.4f}",
            "yes" if checkpoint.resumable else "weights only",
            checkpoint.uri.removeprefix(f"{output}/"),
        )
    return table


def _render_attempts(attempts: list[AttemptStatus]) -> Table:
    table = _table("Attempts", "attempt", "run", "why", "steps", "lost steps", "started", "ended", "outcome", "exit code")
    for attempt in reversed(attempts):
        table.add_row(
            "" if attempt.attempt is None else str(attempt.attempt),
            str(attempt.run),
            attempt.reason,
            f"{attempt.from_step} → {'' if attempt.to_step is None else attempt.to_step}",
            str(attempt.lost_steps or ""),
            attempt.started_at,
            attempt.ended_at or "",
            attempt.outcome or "running",
            "" if attempt.exit_code is None else str(attempt.exit_code),
        )
    return table


def _render_conditions(conditions: list[Condition]) -> Table:
    table = _table("Conditions", "type", "status", "reason", "message")
    told: dict[str, str] = {}
    for condition in conditions:
        calm = condition.status == ("False" if condition.type in GOOD_WHEN_FALSE else "True")
        first = told.setdefault(condition.message, condition.type)
        message = condition.message if first == condition.type or not condition.message else f"as {first}"
        table.add_row(condition.type, Text(condition.status, style="green" if calm else "yellow"), condition.reason, message)
    return table


def _render_usage(usage: UsageStatus) -> Text:
    parts = {
        "starting": usage.starting_seconds,
        "training": usage.productive_seconds,
        "saving": usage.checkpointing_seconds,
        "evaluating": usage.evaluating_seconds,
        "trained again": usage.replayed_seconds,
    }
    cost = f"; cost {usage.cost} {usage.currency}" if usage.cost is not None else ""
    return Text("Time used: " + ", ".join(f"{name} {format_duration(seconds)}" for name, seconds in parts.items()) + cost)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, overflow="fold")
    return table

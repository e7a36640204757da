"""What a manifest comes to: every value and who set it, before anything runs."""

from __future__ import annotations

import json
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from finetune_api.advice import warnings_for
from finetune_api.models.spec import Training
from finetune_api.resolve import Resolution, flatten, processes_per_replica
from finetune_cli.manifest import Document

SOURCE_STYLE = {"job": "bold", "preset": "cyan", "adapter": "magenta", "method": "magenta", "default": "dim"}


def render_plan(document: Document, resolution: Resolution) -> RenderableType:
    """A table of all fields: value and source; below it what follows from them."""
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    for column in ("field", "value", "set by"):
        table.add_column(column, overflow="fold")
    for path, value in resolved_values(resolution).items():
        source = resolution.sources.get(path, "default")
        table.add_row(path, Text(_shown(value)), Text(source, style=SOURCE_STYLE[source]))
    advice = [Text(sentence, style="yellow") for sentence in warnings_for(resolution).values()]
    return Group(Text(f"{document.kind} {document.name}", style="bold"), table, Text(), Text(summarise(resolution)), *advice)


def resolved_values(resolution: Resolution) -> dict[str, Any]:
    """Every field that has a value, by path."""
    values = flatten(resolution.spec.model_dump(by_alias=True, mode="json", exclude_none=True))
    return {path: value for path, value in values.items() if value != {}}


def to_json(resolution: Resolution) -> str:
    """The same as JSON: path -> value and source."""
    values = resolved_values(resolution)
    return json.dumps(
        {path: {"value": value, "source": resolution.sources.get(path, "default")} for path, value in values.items()}, indent=2
    )


def summarise(resolution: Resolution) -> str:
    """Ranks, effective batch and how long the training is, as far as it is known without the data."""
    spec = resolution.spec
    ranks = spec.replicas * processes_per_replica(spec)
    batch = spec.training.batch_size * spec.training.grad_accum_steps * max(ranks, 1)
    where = f"{_count(spec.resources.gpus_per_replica, 'GPU')} each" if spec.resources.device == "gpu" else "on CPU"
    held = " (paused: replicas is 0)" if spec.replicas == 0 else ""
    pods = f"{_count(spec.replicas, 'pod')} {where}, {_count(ranks, 'rank')}{held}"
    return f"{pods}; {_count(batch, 'row')} per optimizer step; {_length(spec.training)}"


def _length(training: Training) -> str:
    epochs, steps = _count(training.epochs, "epoch"), _count(training.max_steps, "optimizer step")
    if training.max_steps <= 0:
        return epochs
    return f"{epochs}, at most {steps}" if training.max_steps_mode == "cap" else steps


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

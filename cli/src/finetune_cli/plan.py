"""What a manifest comes to: every value and who set it, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.text import Text

from finetune_api.advice import warnings_for
from finetune_api.constants import DATASET_KIND
from finetune_api.datasets import rows_of
from finetune_api.duration import Work, training_seconds
from finetune_api.length import length_of, longest_sequence, trained_rows
from finetune_api.models.dataset import DatasetStatus
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.models.spec import FineTuneJobSpec, Training
from finetune_api.pricing import Billing, cost_range, shown
from finetune_api.resolve import Resolution, Source, flatten, processes_per_replica
from finetune_api.suggestions import batch_suggestion, share_cut, unsuited_length, unusual_for_rows
from finetune_cli.errors import CliError
from finetune_cli.gpus import summarise_gpu_type
from finetune_cli.manifest import Document
from finetune_cli.models import summarise_model
from finetune_cli.terminal import counted, format_duration, list_table

SOURCE_STYLE: Mapping[Source, str] = {
    "job": "bold",
    "preset": "cyan",
    "dataset": "green",
    "model": "green",
    "gpuType": "green",
    "backend": "magenta",
    "adapter": "magenta",
    "method": "magenta",
    "default": "dim",
}


class Named(NamedTuple):
    """What a job names, with its spec."""

    base_model: tuple[str, Mapping[str, Any]] | None = None
    dataset: tuple[str, Mapping[str, Any]] | None = None
    gpu_type: tuple[str, Mapping[str, Any]] | None = None
    dataset_status: DatasetStatus | None = None
    """What the look at the Dataset found, where that is known here."""


NOTHING = Named()


def render_plan(document: Document, resolution: Resolution, named: Named = NOTHING, rows: int | None = None) -> RenderableType:
    """A table of all fields: value and source; below it what follows from them, from BaseModel, rows and their lengths where known."""
    rows = rows if rows is not None else rows_of(resolution.spec, named.dataset_status)
    words = {"model": ("BaseModel", named.base_model), "dataset": ("Dataset", named.dataset), "gpuType": ("GpuType", named.gpu_type)}
    table = list_table()
    for column in ("field", "value", "set by"):
        table.add_column(column, overflow="fold")
    for path, value in resolved_values(resolution).items():
        source = resolution.sources.get(path, "default")
        kind, found = words.get(source, ("", None))
        word = f"{kind} {found[0]}" if found is not None else source
        why = f": {resolution.reasons[path]}" if path in resolution.reasons else ""
        table.add_row(path, Text(_shown(value)), Text(f"{word}{why}", style=SOURCE_STYLE[source]))
    model = summarise_model(*named.base_model) if named.base_model is not None else ""
    gpus = summarise_gpu_type(*named.gpu_type, resolution.spec) if named.gpu_type is not None else ""
    data = summarise_dataset(named.dataset[0], named.dataset_status, resolution.spec) if named.dataset is not None else ""
    facts = (
        summarise(resolution, rows),
        model,
        data,
        gpus,
        summarise_cost(resolution.spec, named, rows),
        batch_suggestion(resolution.spec),
    )
    told = [Text(sentence) for sentence in facts if sentence]
    tokens = named.dataset_status.tokens if named.dataset_status is not None else None
    unsuited = (_for_rows(resolution, rows), unsuited_length(resolution.spec, tokens) if tokens is not None else "")
    advice = [Text(sentence, style="yellow") for sentence in (*warnings_for(resolution).values(), *unsuited) if sentence]
    return Group(Text(f"{document.kind} {document.name}", style="bold"), table, Text(), *told, *advice)


def summarise_cost(spec: FineTuneJobSpec, named: Named, rows: int | None) -> str:
    """What the job may cost with the chart's constants, as a range; empty where price, parameters or steps are not known here (O-01)."""
    if named.gpu_type is None or named.base_model is None:
        return ""
    gpu_type, parameters = GpuTypeSpec.model_validate(named.gpu_type[1]), named.base_model[1].get("parameters")
    ranks = max(spec.replicas, 1) * processes_per_replica(spec)
    steps = _steps(spec, rows, ranks)
    if gpu_type.hourly_rate is None or gpu_type.tflops is None or parameters is None or steps is None:
        return ""
    gpus, billing = max(spec.replicas, 1) * spec.resources.gpus_per_replica, Billing()
    tokens = named.dataset_status.tokens if named.dataset_status is not None else None
    longest = longest_sequence(spec, named.base_model[1].get("contextLength"))
    work = Work(steps, ranks, gpus, parameters, tokens.p95 if tokens is not None else None, longest)
    seconds = training_seconds(spec, work, tflops=gpu_type.tflops, utilization=billing.utilization)
    if seconds is None:
        return ""
    low, high = cost_range(seconds, gpu_type.hourly_rate, gpus, billing)
    overhead = format_duration(sum(billing.overhead_seconds.values()))
    return f"Cost: {shown(low)} to {shown(high)} {gpu_type.currency} ({format_duration(seconds)} of training, {overhead} around it)"


def _steps(spec: FineTuneJobSpec, rows: int | None, ranks: int) -> int | None:
    length = length_of(spec, rows=trained_rows(spec, rows) if rows is not None else None, world_size=ranks) if spec.method else None
    return length.steps if length is not None else None


def _for_rows(resolution: Resolution, rows: int | None) -> str:
    return unusual_for_rows(resolution.spec, rows) if rows is not None and resolution.spec.method is not None else ""


def summarise_dataset(name: str, status: DatasetStatus | None, spec: FineTuneJobSpec) -> str:
    """How many rows a Dataset has, how long they are, and which of them the job cuts (F-08); else how to find that out."""
    if status is None or status.examples is None:
        return f"{DATASET_KIND} {name}: its rows are not known here; kubectl get dataset {name} -o yaml prints them for --dataset-file"
    rows = f"{DATASET_KIND} {name}: {counted(status.examples, 'row')}{'' if status.is_whole is not False else ' or more'}"
    tokens = status.tokens
    if tokens is None:
        return f"{rows}; how long they are is counted where the {DATASET_KIND} has spec.tokenizer"
    cut = share_cut(spec, tokens)
    told = f"; training.maxSeqLength {spec.training.max_seq_length} cuts {cut}" if cut else ""
    lengths = f"half have at most {tokens.p50} tokens, 95 % at most {tokens.p95}, the longest {tokens.max}"
    return f"{rows}; of {tokens.rows} that were counted {lengths}{told}"


def resolved_values(resolution: Resolution) -> dict[str, Any]:
    """Every field that has a value, by path."""
    values = flatten(resolution.spec.model_dump(by_alias=True, mode="json", exclude_none=True))
    return {path: value for path, value in values.items() if value != {}}


def to_json(resolution: Resolution) -> str:
    """The same as JSON: path -> value and source, and the reason where there is one."""
    reasons = {path: {"reason": reason} for path, reason in resolution.reasons.items()}
    told = {
        path: {"value": value, "source": resolution.sources.get(path, "default"), **reasons.get(path, {})}
        for path, value in resolved_values(resolution).items()
    }
    return json.dumps(told, indent=2)


def summarise(resolution: Resolution, rows: int | None = None) -> str:
    """Ranks, effective batch, how long the training is and how many checkpoints it leaves, as far as that is known (O-15)."""
    spec = resolution.spec
    ranks = spec.replicas * processes_per_replica(spec)
    batch = spec.training.batch_size * spec.training.grad_accum_steps * max(ranks, 1)
    where = f"{counted(spec.resources.gpus_per_replica, 'GPU')} each" if spec.resources.device == "gpu" else "on CPU"
    held = " (paused: replicas is 0)" if spec.replicas == 0 else ""
    pods = f"{counted(spec.replicas, 'pod')} {where}, {counted(ranks, 'rank')}{held}"
    return f"{pods}; {counted(batch, 'row')} per optimizer step; {_length(spec, rows, max(ranks, 1))}"


def _length(spec: FineTuneJobSpec, rows: int | None, ranks: int) -> str:
    try:
        known = trained_rows(spec, rows) if rows is not None else None
        length = length_of(spec, rows=known, world_size=ranks) if spec.method is not None else None
    except ValueError as error:
        raise CliError(str(error)) from error
    if length is None:
        return _limits(spec.training)
    checkpoints = f"; {counted(length.checkpoints, 'checkpoint')}" if length.checkpoints is not None else ""
    return f"{counted(length.steps, 'optimizer step')}{checkpoints}"


def _limits(training: Training) -> str:
    epochs, steps = counted(training.epochs, "epoch"), counted(training.max_steps, "optimizer step")
    if training.max_steps <= 0:
        return epochs
    return f"{epochs}, at most {steps}" if training.max_steps_mode == "cap" else steps


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

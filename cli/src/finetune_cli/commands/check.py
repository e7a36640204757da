"""validate, plan, explain: judging a manifest before it is applied, and what may stand in it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from finetune_api.models.base import Tier
from finetune_cli.options import Manifest, PresetFiles


class Format(enum.StrEnum):
    """How a plan is printed."""

    TABLE = "table"
    JSON = "json"


def validate(file: Manifest, preset_file: PresetFiles = None) -> None:
    """Check FineTuneJobs, presets and what else jobs name by the rules of the API server and the operator. Needs no cluster."""
    from finetune_api.advice import warnings_for
    from finetune_api.constants import KIND
    from finetune_cli.manifest import judge_document, named_beside, presets_of, problems_of_document, read_documents, read_named

    console = Console(soft_wrap=True)
    documents, known = read_documents(file), read_named(preset_file or [])
    presets = {**presets_of(known), **named_beside(documents)}
    invalid = False
    for document in documents:
        problems = list(problems_of_document(document))
        advice: Mapping[str, str] = {}
        if not problems and document.kind == KIND:
            resolution, found = judge_document(document, presets, [*known, *documents])
            problems, advice = list(found), warnings_for(resolution)
        console.print(Text.assemble(f"{document}: ", ("invalid", "red") if problems else ("valid", "green")))
        for problem in problems:
            console.print(Text.assemble("  ", (problem.path, "bold"), f": {problem.message}"))
        for sentence in advice.values():
            console.print(Text(f"  {sentence}", style="yellow"))
        invalid = invalid or bool(problems)
    if invalid:
        raise typer.Exit(1)


def plan(
    file: Manifest,
    preset_file: PresetFiles = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", min=1, help="Rows of the dataset: shows steps, checkpoints and what suits so many. Default: those of the Dataset."
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print it.")] = Format.TABLE,
) -> None:
    """Show every value a FineTuneJob would run with, and whether the job, what it names or a default sets it. Needs no cluster."""
    from finetune_cli.manifest import (
        find_base_model,
        find_dataset,
        find_dataset_status,
        find_gpu_type,
        named_beside,
        presets_of,
        read_documents,
        read_named,
        resolve_document,
        the_job,
    )
    from finetune_cli.plan import Named, render_plan, to_json

    documents = read_documents(file)
    known = read_named(preset_file or [])
    document, presets = the_job(documents, file), {**presets_of(known), **named_beside(documents)}
    resolution = resolve_document(document, presets, [*known, *documents])
    if output is Format.JSON:
        Console().out(to_json(resolution), highlight=False)
    else:
        dataset = find_dataset(document, presets)
        status = find_dataset_status(dataset[0], [*known, *documents]) if dataset is not None else None
        named = Named(find_base_model(document, presets), dataset, find_gpu_type(document, presets), status)
        Console().print(render_plan(document, resolution, named, rows))


def explain(
    field: Annotated[
        str | None,
        typer.Argument(metavar="[FIELD]", help="training.batchSize, a block such as training, or a bare name; without one all fields."),
    ] = None,
    tier: Annotated[Tier, typer.Option(help="Lists: only fields that are at least so prominent.")] = Tier.ADVANCED,
) -> None:
    """Explain fields of FineTuneJobs: meaning, default, range, recommended values, rules, what a later edit means. Needs no cluster."""
    from finetune_cli.explain import explain_job, explain_name
    from finetune_cli.terminal import list_console

    list_console().print(explain_job(tier) if field is None else explain_name(field, tier))

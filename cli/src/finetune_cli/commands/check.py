"""validate, plan: judging a manifest before it is applied."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from finetune_cli.options import Manifest, PresetFiles


class Format(enum.StrEnum):
    """How a plan is printed."""

    TABLE = "table"
    JSON = "json"


def validate(file: Manifest, preset_file: PresetFiles = None) -> None:
    """Check FineTuneJobs and presets by the rules of the API server and the operator. Needs no cluster."""
    from finetune_api.advice import warnings_for
    from finetune_api.constants import KIND
    from finetune_cli.manifest import PRESET_KINDS, judge_document, problems_of_document, read_documents, read_presets

    console = Console(soft_wrap=True)
    documents = read_documents(file)
    beside = {(each.kind, each.name): each.spec for each in documents if each.kind in PRESET_KINDS and not problems_of_document(each)}
    presets = {**read_presets(preset_file or []), **beside}
    invalid = False
    for document in documents:
        problems = list(problems_of_document(document))
        advice: Mapping[str, str] = {}
        if not problems and document.kind == KIND:
            resolution, found = judge_document(document, presets)
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
    output: Annotated[Format, typer.Option("--output", "-o", help="How to print it.")] = Format.TABLE,
) -> None:
    """Show every value a FineTuneJob would run with, and whether the job, a preset or a default sets it. Needs no cluster."""
    from finetune_cli.manifest import read_job, read_presets, resolve_document
    from finetune_cli.plan import render_plan, to_json

    document = read_job(file)
    resolution = resolve_document(document, read_presets(preset_file or []))
    if output is Format.JSON:
        Console().out(to_json(resolution), highlight=False)
    else:
        Console().print(render_plan(document, resolution))

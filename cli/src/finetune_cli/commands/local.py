"""run-local: the same manifest without a cluster."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from finetune_cli.options import Manifest, PresetFiles

DEFAULT_ROOT = Path("finetune-local")


class Device(enum.StrEnum):
    """What a local run trains on."""

    CPU = "cpu"
    GPU = "gpu"


def run_local(
    file: Manifest,
    directory: Annotated[
        Path | None, typer.Option("--dir", help="Where store, caches and logs are kept. Default: ./finetune-local/NAME.")
    ] = None,
    maps: Annotated[
        list[str] | None,
        typer.Option("--map", metavar="URI=PATH", help="A file or directory that stands for a source of the manifest. Repeatable."),
    ] = None,
    preset_file: PresetFiles = None,
    device: Annotated[Device | None, typer.Option(help="Instead of spec.resources.device.")] = None,
) -> None:
    """Run a FineTuneJob as processes on this machine, with a directory as its store.

    Ctrl-C pauses: a checkpoint is completed, then all processes end. The same command goes on from there.
    """
    from finetune_api.models.status import Phase
    from finetune_cli.local.directory import LocalDirectory
    from finetune_cli.local.run import on_device, run_to_end
    from finetune_cli.local.sources import SourceMap
    from finetune_cli.manifest import read_job, read_presets, resolve_document
    from finetune_cli.view import render_summary

    console = Console()
    document = read_job(file)
    spec = on_device(resolve_document(document, read_presets(preset_file or [])).spec, device.value if device else None)
    place = LocalDirectory((directory or DEFAULT_ROOT / document.name).absolute())
    ended = run_to_end(document.name, spec, [SourceMap.parse(text) for text in maps or []], place, console)
    console.print(render_summary(ended))
    if ended.phase is Phase.PAUSED:
        console.print(f"Paused. The same command goes on from here; logs are in {place.run(ended.status.run)}.")
    if ended.phase is Phase.FAILED:
        console.print(f"Logs are in {place.run(ended.status.run)}.")
        raise typer.Exit(1)

"""run-local: the same manifest without a cluster."""

from __future__ import annotations

import enum
from datetime import datetime
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

    Ctrl-C pauses: a checkpoint is completed, then all processes end. The same command goes on from there. A job without metadata.name is
    called after its method and the time; it goes on with --dir.
    """
    from finetune_api.models.status import Phase
    from finetune_cli.local.directory import LocalDirectory
    from finetune_cli.local.gpu import resolve_here
    from finetune_cli.local.naming import name_job
    from finetune_cli.local.run import on_device, run_to_end
    from finetune_cli.local.sources import SourceMap
    from finetune_cli.manifest import read_job, read_presets
    from finetune_cli.view import render_summary

    console = Console()
    document = read_job(file)
    resolution = resolve_here(document, read_presets(preset_file or []), device.value if device else None)
    for note in resolution.notes:
        console.print(note, style="yellow", soft_wrap=True)
    spec = on_device(resolution.spec, device.value if device else None)
    job = name_job(document, spec, directory, datetime.now().astimezone())
    place = LocalDirectory((directory or DEFAULT_ROOT / job.name).absolute())
    if not document.name:
        console.print(f"The manifest has no metadata.name; the job is called {job.name}.", soft_wrap=True)
    ended = run_to_end(job.name, job.spec, [SourceMap.parse(text) for text in maps or []], place, console)
    console.print(render_summary(ended))
    if ended.phase is Phase.PAUSED:
        same = "The same command" if document.name or directory else f"The same command with --dir {place.root}"
        console.print(f"Paused. {same} goes on from here; logs are in {place.run(ended.status.run)}.", soft_wrap=True)
    if ended.phase is Phase.FAILED:
        console.print(f"Logs are in {place.run(ended.status.run)}.")
        raise typer.Exit(1)

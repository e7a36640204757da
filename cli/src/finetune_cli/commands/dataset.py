"""dataset pack: a directory of images and rows as the ZIP that ``dataset.format: vlm-zip`` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make files of training data.", no_args_is_help=True)
"""``kubectl finetune dataset``."""
Directory = Annotated[
    Path, typer.Argument(metavar="DIR", help="Directory with train.jsonl and the images it names.", exists=True, file_okay=False)
]
Output = Annotated[Path | None, typer.Option("--output", "-o", metavar="ZIP", help="File to write. Unset: DIR.zip beside the directory.")]


@app.callback()
def dataset() -> None:
    """Make files of training data. Needs no cluster."""


@app.command()
def pack(directory: Directory, output: Output = None) -> None:
    """Put the content of a directory into a ZIP, train.jsonl at its root, after a look at the rows."""
    from rich.console import Console

    from finetune_cli.packing import pack_directory

    target = output or directory.resolve().with_suffix(".zip")
    packed = pack_directory(directory, target)
    Console(soft_wrap=True).print(f"{target}: {packed.rows} rows, {packed.files} other files, {target.stat().st_size} bytes")

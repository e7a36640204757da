"""What stays on the machine after ``make demo-down``, so that the next demo takes minutes less."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from finetune_cli.demo.record import home_of
from finetune_cli.demo.shell import CommandFailedError, Shell
from finetune_cli.terminal import format_bytes

MEASURE_SECONDS = 300


def kept_folders(root: Path, environment: Mapping[str, str]) -> dict[Path, str]:
    """Folders that the demo fills and leaves, and what is in them."""
    return {home_of(environment): "programs, images and downloads of the cluster", root / ".venv": "the Python environment"}


def shared_caches(environment: Mapping[str, str]) -> dict[Path, str]:
    """Caches that the demo fills and other projects may use."""
    caches = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {
        Path(environment.get("UV_CACHE_DIR") or caches / "uv"): "uv's cache",
        Path(environment.get("GOMODCACHE") or Path(environment.get("GOPATH") or Path.home() / "go") / "pkg/mod"): "Go's modules",
        Path(environment.get("GOCACHE") or caches / "go-build"): "Go's build cache",
    }


def show_leftovers(root: Path, shell: Shell, console: Console) -> None:
    """Print the folders with their sizes, and the lines that remove them."""
    own = {path: what for path, what in kept_folders(root, shell.environment).items() if path.exists()}
    shared = {path: what for path, what in shared_caches(shell.environment).items() if path.exists()}
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for path, what in {**own, **shared}.items():
        table.add_row(_size(path, shell), str(path), what)
    console.print("Kept for the next time (Debian packages stay installed too, and images in Docker):", soft_wrap=True)
    console.print(table)
    console.print("To remove it:", style="bold")
    lines = [
        f".venv/bin/finetune-cluster down --purge; rm -rf {_words(own)}",
        f"chmod -R u+w {_words(shared)}; rm -rf {_words(shared)}    # other projects may use these",
    ]
    for line in lines[: 2 if shared else 1]:
        console.print(f"  {line}", highlight=False, soft_wrap=True)


def _words(folders: Iterable[Path]) -> str:
    return shlex.join(str(path) for path in folders)


def _size(path: Path, shell: Shell) -> str:
    """Size on the disk; du fails where a file may not be read or goes away meanwhile, which is no reason to fail."""
    try:
        return format_bytes(int(shell.capture("du", "-sk", path, timeout_seconds=MEASURE_SECONDS, quietly=True).split()[0]) * 1024)
    except CommandFailedError:
        return "?"

"""What stays on the machine after ``make demo-down``, so that the next demo takes minutes less."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from finetune_cli.demo.record import home_of
from finetune_cli.demo.shell import CommandFailedError, Shell
from finetune_cli.terminal import format_bytes

MEASURE_SECONDS = 300


def kept_folders(root: Path, environment: Mapping[str, str]) -> dict[Path, str]:
    """Folders that the demo fills and leaves, and what is in them."""
    caches = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {
        home_of(environment): "programs, images and downloads of the cluster",
        root / ".venv": "the Python environment",
        Path(environment.get("UV_CACHE_DIR") or caches / "uv"): "uv's cache, shared with other projects",
        Path(environment.get("GOMODCACHE") or Path(environment.get("GOPATH") or Path.home() / "go") / "pkg/mod"): "Go's modules, shared",
        Path(environment.get("GOCACHE") or caches / "go-build"): "Go's build cache, shared",
    }


def show_leftovers(root: Path, shell: Shell, console: Console) -> None:
    """Print the folders with their sizes, and the line that removes them."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    for path, what in kept_folders(root, shell.environment).items():
        if path.exists():
            table.add_row(_size(path, shell), str(path), what)
    if not table.row_count:
        return
    console.print("Kept for the next time (Debian packages stay installed too, and images in Docker):")
    console.print(table)
    console.print("To remove it:", style="bold")
    home = home_of(shell.environment)
    console.print(f"  .venv/bin/finetune-cluster down --purge; rm -rf {home} .venv", highlight=False, soft_wrap=True)
    console.print("  uv cache clean; go clean -cache -modcache    # other projects fill them too", highlight=False, soft_wrap=True)


def _size(path: Path, shell: Shell) -> str:
    """Size on the disk; du fails where a file may not be read or goes away meanwhile, which is no reason to fail."""
    try:
        return format_bytes(int(shell.capture("du", "-sk", path, timeout_seconds=MEASURE_SECONDS, quietly=True).split()[0]) * 1024)
    except CommandFailedError:
        return "?"

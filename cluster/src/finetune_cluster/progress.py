"""Tells the person at the terminal what is going on; standard output is left to results."""

import contextlib
import time
from collections.abc import Iterator

from rich.console import Console

_FAST_SECONDS = 0.5


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Announce something that may take long, and say how long it took."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"[dim]…[/dim] {what}")
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    if seconds > _FAST_SECONDS:
        console.print(f"[green]✓[/green] {what} [dim]{seconds:.1f} s[/dim]")

"""The demo's stages: a headline each, and how long each took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from finetune_cli.terminal import format_duration, list_table


class Stages:
    """Times what happens inside ``with stages("..."):``."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._took: list[tuple[str, float]] = []

    @contextmanager
    def __call__(self, title: str) -> Iterator[None]:
        """Show a headline; what is inside counts towards it."""
        self._console.print()
        self._console.print(Rule(title, align="left", style="cyan"))
        began = self._clock()
        try:
            yield
        finally:
            self._took.append((title, self._clock() - began))

    def render(self) -> Table:
        """A table of all stages and their sum."""
        table = list_table()
        table.add_column("stage")
        table.add_column("time", justify="right")
        for title, seconds in self._took:
            table.add_row(title, format_duration(seconds))
        table.add_row("all", format_duration(sum(seconds for _, seconds in self._took)), style="bold")
        return table

"""How results are compared and shown: ratios of paired runs, one table per benchmark, the machine and its load beside them."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Pairs:
    """Two sides measured alternately."""

    ours: float
    """Median of our side."""
    base: float
    """Median of the other side."""
    ratios: tuple[float, ...]
    """Ours over the base, run by run, so that slow drifts of the machine cancel."""

    @property
    def ratio(self) -> float:
        """Median of the ratios."""
        return statistics.median(self.ratios)

    @property
    def text(self) -> str:
        """Median, and the span of all pairs."""
        return f"{self.ratio:.3f} ({min(self.ratios):.3f}-{max(self.ratios):.3f})"


@dataclass(frozen=True)
class Verdict:
    """A figure against its bar."""

    value: float
    bar: float
    at_least: bool = False
    """Larger is better."""

    @property
    def is_met(self) -> bool:
        """Whether the bar is met."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    @property
    def text(self) -> str:
        """For the tables."""
        return "met" if self.is_met else "missed"


def pairs(ours: Sequence[float], base: Sequence[float]) -> Pairs:
    """Pair the runs of two sides in the order they were made."""
    return Pairs(statistics.median(ours), statistics.median(base), tuple(a / b for a, b in zip(ours, base, strict=True)))


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def spread(values: Sequence[float]) -> str:
    """Minimum, median and maximum."""
    return f"{min(values):.2f} / {statistics.median(values):.2f} / {max(values):.2f}"


def machine() -> str:
    """The machine and how busy it is now: a figure means little without."""
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), ""
    )
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    cores = len(os.sched_getaffinity(0))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return f"{now}  {cores} CPUs ({model or platform.machine()}), load averages {load}"


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print a table and what belongs to it."""
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=140)
    console.print(table)
    for note in notes:
        console.print(note, highlight=False)

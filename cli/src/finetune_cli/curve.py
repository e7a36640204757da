"""The loss curve of a job, drawn in the terminal from the per-step metrics in its store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import Final

import plotille  # type: ignore[import-untyped]

from finetune_cli.errors import CliError
from finetune_cli.store import Store

METRICS_PREFIX: Final = "metrics/"
_METRICS_KEY: Final = re.compile(r"metrics/attempt-([1-9][0-9]*)\.jsonl")
HEIGHT: Final = 14
MIN_WIDTH: Final = 30
AXIS_WIDTH: Final = 24
"""Columns that plotille needs beside the plot: tick labels on the left, the arrow and label of the x axis on the right."""


@dataclass(frozen=True, slots=True)
class Point:
    """The loss of one optimizer step."""

    attempt: int
    step: int
    loss: float


@dataclass(frozen=True, slots=True)
class Curve:
    """The losses that led to the newest weights, by step."""

    points: tuple[Point, ...]

    @property
    def resumed_at(self) -> tuple[int, ...]:
        """First step of every attempt but the first."""
        pairs = zip(self.points, self.points[1:], strict=False)
        return tuple(later.step for earlier, later in pairs if later.attempt != earlier.attempt)

    def mean_of(self, share: float, *, end: bool) -> float:
        """Mean loss of the first or last share of the steps (at least one)."""
        count = max(1, round(len(self.points) * share))
        chosen = self.points[-count:] if end else self.points[:count]
        return fmean(point.loss for point in chosen)


def read_points(lines: Iterable[str]) -> list[Point]:
    """Rows of a metrics file that have a loss; a last line that is still being written is left out."""
    points = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row.get("loss") is not None:
            points.append(Point(row["attempt"], row["step"], row["loss"]))
    return points


def join_attempts(points: Iterable[Point]) -> Curve:
    """Put the attempts of a job together: where a later attempt starts, the rest of the earlier ones was abandoned."""
    by_attempt: dict[int, list[Point]] = {}
    for point in points:
        by_attempt.setdefault(point.attempt, []).append(point)
    kept: list[Point] = []
    starts_at: int | None = None
    for _, rows in sorted(by_attempt.items(), reverse=True):
        kept += [point for point in rows if starts_at is None or point.step < starts_at]
        first = min(point.step for point in rows)
        starts_at = first if starts_at is None else min(starts_at, first)
    return Curve(tuple(sorted(kept, key=lambda point: point.step)))


def read_curve(store: Store) -> Curve:
    """Read all metrics of a job from its store.

    Raises:
        CliError: there are none with a loss yet.
    """
    keys = [file.key for file in store.files(METRICS_PREFIX) if _METRICS_KEY.fullmatch(file.key)]
    curve = join_attempts(point for key in keys for point in read_points(store.read(key).decode().splitlines()))
    if not curve.points:
        raise CliError(f"{store.uri}/{METRICS_PREFIX} has no losses yet", advice="They are uploaded with each checkpoint and at the end.")
    return curve


def draw_curve(curve: Curve, width: int, *, color: bool) -> str:
    """Draw loss over step, with a vertical line where an attempt took over.

    Args:
        curve: At least one point.
        width: Columns of the terminal; the plot is at least :data:`MIN_WIDTH` wide.
        color: Whether escape sequences may be used.
    """
    figure = plotille.Figure()
    figure.width = max(MIN_WIDTH, width - AXIS_WIDTH)
    figure.height = HEIGHT
    figure.with_colors = color
    figure.x_label, figure.y_label = "step", "loss"
    steps, losses = [point.step for point in curve.points], [point.loss for point in curve.points]
    last = steps[-1]
    figure.set_x_limits(min_=0, max_=last)
    low, high = min(losses), max(losses)
    margin = (high - low) * 0.05 or 0.5
    figure.set_y_limits(min_=low - margin, max_=high + margin)
    figure.x_ticks_fkt = lambda value, _: f"{value:.0f}"
    figure.y_ticks_fkt = lambda value, _: f"{value:.3f}"
    figure.plot(steps, losses, lc="cyan" if color else None)
    for step in curve.resumed_at:
        figure.axvline(step / last, lc="yellow" if color else None)
    return str(figure.show())


def summarise_curve(curve: Curve) -> str:
    """Loss at the beginning and at the end, as means over a tenth of the steps."""
    began, ended = curve.mean_of(0.1, end=False), curve.mean_of(0.1, end=True)
    resumed = f"; resumed at step {', '.join(map(str, curve.resumed_at))}" if curve.resumed_at else ""
    return f"loss {began:.4f} → {ended:.4f} over {len(curve.points)} recorded steps (means of the first and last tenth){resumed}"

"""Draws a dashboard from its own JSON and the answers to its own queries: what Grafana would show, roughly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from finetune_monitoring.formats import shown
from finetune_monitoring.prometheus import Series
from finetune_monitoring.view import Answer, Document, View, crossed, merged, name_of, substitute

COLOURS: Final[Mapping[str, str]] = {
    "blue": "#5794f2", "green": "#56a64b", "orange": "#ff780a", "red": "#e02f44", "text": "#24292e",
}  # fmt: skip
CYCLE: Final = (
    "#5794f2",
    "#ff780a",
    "#56a64b",
    "#b877d9",
    "#e02f44",
    "#f2cc0c",
    "#8ab8ff",
    "#7c2ea3",
    "#96d98d",
    "#ffb357",
    "#705da0",
    "#447ebc",
)
COLUMN_INCHES: Final = 0.72
ROW_INCHES: Final = 0.42
GAP: Final = 0.1
"""Around a panel, in grid units."""
_BARE: Final = ("stat", "table")
"""Panels without axes."""
_TIMED: Final = ("timeseries", "state-timeline")
"""Panels over time, on which annotations are drawn."""
_LEFT: Final[Mapping[str, float]] = {"stat": 0.2, "table": 0.2, "state-timeline": 2.6, "bargauge": 2.6}
"""Grid units left of the axes, where that is not the usual width of a number."""
SHORT: Final = 0.05
"""Share of the time range below which a state is not named: its name would lie on the next one."""
DOTS_PER_INCH: Final = 100


def draw(dashboard: Document, view: View, chosen: Mapping[str, str], target: Path) -> None:
    """Write a picture (PNG or SVG, by the name of ``target``)."""
    variables = view.variables(dashboard, chosen)
    marks = view.marks(dashboard, variables)
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in dashboard["panels"]) + 2
    with mpl.rc_context({"font.size": 7, "axes.edgecolor": "#c7cbd1", "svg.hashsalt": dashboard["uid"], "font.family": "DejaVu Sans"}):
        figure = Figure(figsize=(24 * COLUMN_INCHES, height * ROW_INCHES), facecolor="#f4f5f5")
        title = substitute("  ".join([dashboard["title"], *(f"{name}={value}" for name, value in variables.items())]), {})
        figure.text(0.006, 1 - 1 / height, title, fontsize=11, weight="bold", va="center")
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            top = place["y"] + 2
            if panel["type"] == "row":
                figure.text(0.006, 1 - (top + 0.5) / height, panel["title"], fontsize=9, weight="bold", va="center")
                continue
            left, bottom = (place["x"] + GAP) / 24, 1 - (top + place["h"] - GAP) / height
            width, tall = (place["w"] - 2 * GAP) / 24, (place["h"] - 2 * GAP) / height
            card = figure.add_axes((left, bottom, width, tall), facecolor="white", xticks=[], yticks=[])
            card.text(0.01, 1 - 0.35 / place["h"], panel["title"], transform=card.transAxes, va="top", weight="bold", fontsize=7.5)
            pad = _LEFT.get(panel["type"], 1.4) / place["w"]
            right = min(0.5, pad) if panel["type"] in _BARE else 0.4 / place["w"]
            inner = (left + width * pad, bottom + tall * 1.0 / place["h"], width * (1 - pad - right), tall * (1 - 2.2 / place["h"]))
            axes = figure.add_axes(inner, facecolor="white")
            _DRAW[panel["type"]](axes, panel, view.answers(panel, variables), view)
            if panel["type"] in _TIMED:
                for mark in reversed(marks):
                    axes.axvline(_date(mark.moment), color=COLOURS[mark.colour], linewidth=0.7, linestyle="--", alpha=0.7)
        figure.savefig(target, dpi=DOTS_PER_INCH, metadata={"Software": None} if target.suffix == ".png" else {"Date": None})


def _unit(panel: Document) -> str:
    return str(panel["fieldConfig"]["defaults"]["unit"])


def _curves(axes: Axes, panel: Document, answers: list[Answer], view: View) -> None:
    named = [(name_of(series, answer.legend), series) for answer in answers for series in answer.series]
    overrides = {o["matcher"]["options"]: o["properties"][0]["value"] for o in panel["fieldConfig"].get("overrides", [])}
    colours = [_colour(overrides.get(name), index) for index, (name, _) in enumerate(named)]
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    if custom.get("stacking", {}).get("mode") == "normal" and named:
        moments = [view.start + number * view.step for number in range(round((view.end - view.start) / view.step) + 1)]
        layers = [_at(series, moments) for _, series in named]
        axes.stackplot([_date(moment) for moment in moments], layers, labels=[name for name, _ in named], colors=colours, alpha=0.6)
    else:
        marker = "." if custom.get("showPoints") == "always" else ""
        for colour, (name, series) in zip(colours, named, strict=True):
            points = list(_gapped(series, view))
            axes.plot([_date(t) for t, _ in points], [v for _, v in points], label=name, color=colour, linewidth=1, marker=marker)
    _time_axis(axes, view)
    _value_axis(axes, _unit(panel))
    _legend(axes)


def _at(series: Series, moments: Sequence[float]) -> list[float]:
    """Values at moments of the grid; 0 where there is none."""
    values = {round(moment, 3): value for moment, value in series.points}
    return [values.get(round(moment, 3), 0.0) for moment in moments]


def _gapped(series: Series, view: View) -> Iterator[tuple[float, float]]:
    """Points, with a hole where none came for longer than a step: no line is drawn over it."""
    for before, (moment, value) in zip((None, *series.points), series.points, strict=False):
        if before is not None and moment - before[0] > 1.5 * view.step:
            yield before[0] + view.step, math.nan
        yield moment, value


def _timeline(axes: Axes, panel: Document, answers: list[Answer], view: View) -> None:
    mapping = panel["fieldConfig"]["defaults"]["mappings"][0]["options"]
    rows = [(name_of(series, answer.legend), series) for answer in answers for series in answer.series]
    for row, (_, series) in enumerate(rows):
        for moment, value in series.points:
            colour = COLOURS[mapping[f"{value:g}"]["color"]]
            axes.barh(row, _date(moment + view.step) - _date(moment), left=_date(moment), color=colour, height=0.7)
        changes = _changes(series)
        ends = [*(moment for moment, _ in changes[1:]), view.end]
        named = ((change, end) for change, end in zip(changes, ends, strict=True) if end - change[0] > SHORT * (view.end - view.start))
        for (moment, value), _ in named:
            axes.text(_date(moment), row, f" {mapping[f'{value:g}']['text']}", va="center", fontsize=6, color="white", clip_on=True)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.invert_yaxis()
    _time_axis(axes, view)


def _changes(series: Series) -> list[tuple[float, float]]:
    """Points whose value differs from the one before."""
    pairs = zip(series.points, ((0.0, float("nan")), *series.points), strict=False)
    return [point for point, before in pairs if point[1] != before[1]]


def _big(axes: Axes, panel: Document, answers: list[Answer], _view: View) -> None:
    axes.axis("off")
    defaults = panel["fieldConfig"]["defaults"]
    found = [series.last for answer in answers for series in answer.series]
    if not found:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="#8e9297")
        return
    value, colour = found[0], COLOURS["text"]
    text = shown(value, _unit(panel))
    if defaults.get("mappings"):
        result = defaults["mappings"][0]["options"][f"{value:g}"]
        text, colour = result["text"], COLOURS[result["color"]]
    else:
        for step in defaults.get("thresholds", {}).get("steps", []):
            if step.get("value") is None or value >= step["value"]:
                colour = COLOURS[step["color"]]
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=15, weight="bold", color=colour)


def _bars(axes: Axes, panel: Document, answers: list[Answer], _view: View) -> None:
    named = [(name_of(series, answer.legend), series.last) for answer in answers for series in answer.series]
    axes.barh([name for name, _ in named], [value for _, value in named], color=CYCLE[: len(named)])
    for row, (_, value) in enumerate(named):
        axes.text(value, row, f" {shown(value, _unit(panel))}", va="center", fontsize=6)
    axes.margins(x=0.25)
    axes.xaxis.set_visible(False)


def _table(axes: Axes, panel: Document, answers: list[Answer], _view: View) -> None:
    axes.axis("off")
    first, organize = (each["options"] for each in panel["transformations"])
    renamed: dict[str, str] = organize["renameByName"]
    overrides = {o["matcher"]["options"]: {p["id"]: p["value"] for p in o["properties"]} for o in panel["fieldConfig"].get("overrides", [])}
    if "rowField" in first:
        (heading,) = renamed
        columns, rows = crossed(merged(answers), (first["rowField"], first["columnField"], first["valueField"]), heading)
    else:
        columns, rows = sorted(organize["indexByName"], key=organize["indexByName"].__getitem__), merged(answers)
    titles = [renamed.get(key, key) for key in columns]
    cells = [[_cell(row.get(key), overrides.get(title, {})) for key, title in zip(columns, titles, strict=True)] for row in rows]
    if not cells:
        axes.text(0.5, 0.5, "no data", ha="center", va="center", color="#8e9297")
        return
    table = axes.table([[text for text, _ in row] for row in cells], colLabels=titles, loc="upper left", cellLoc="left")
    table.auto_set_font_size(value=False)
    table.set_fontsize(6.5)
    table.auto_set_column_width(list(range(len(columns))))
    for (row, column), cell in table.get_celld().items():
        cell.set_edgecolor("#e4e7e7")
        colour = cells[row - 1][column][1] if row else None
        if colour:
            cell.set_facecolor(colour)


def _cell(value: Any, override: Mapping[str, Any]) -> tuple[str, str | None]:
    """Text and background of a cell."""
    if value is None or isinstance(value, str):
        return (value or "")[-34:], None
    if "mappings" in override:
        result = override["mappings"][0]["options"][f"{value:g}"]
        return result["text"], COLOURS[result["color"]]
    return shown(value, override.get("unit", "short")), None


def _scatter(axes: Axes, panel: Document, answers: list[Answer], _view: View) -> None:
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in merged(answers):
        if "Value #A" in row and "Value #B" in row:
            name = "/".join(row[key] for key in panel["transformations"][2]["options"]["fields"])
            curves.setdefault(name, []).append((row["Value #A"], row["Value #B"]))
    for index, (name, points) in enumerate(curves.items()):
        axes.plot([x for x, _ in points], [y for _, y in points], label=name, color=CYCLE[index % len(CYCLE)], linewidth=1)
    axes.set_xlabel("step", fontsize=6)
    axes.grid(color="#eeeeee")
    _value_axis(axes, _unit(panel))
    _legend(axes)


_DRAW: Final[Mapping[str, Callable[[Axes, Document, list[Answer], View], None]]] = {
    "timeseries": _curves, "state-timeline": _timeline, "stat": _big, "bargauge": _bars, "table": _table, "xychart": _scatter,
}  # fmt: skip


def _colour(override: Mapping[str, str] | None, index: int) -> str:
    return COLOURS[override["fixedColor"]] if override else CYCLE[index % len(CYCLE)]


def _date(moment: float) -> float:
    return float(date2num(datetime.fromtimestamp(moment, UTC)))


def _time_axis(axes: Axes, view: View) -> None:
    axes.set_xlim(_date(view.start), _date(view.end))
    locator = AutoDateLocator(minticks=3, maxticks=7)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator, show_offset=False))
    axes.grid(axis="x", color="#eeeeee")


def _value_axis(axes: Axes, unit: str) -> None:
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: shown(value, unit)))
    axes.grid(axis="y", color="#eeeeee")
    axes.tick_params(labelsize=6)


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0.2, fontsize=5.5, frameon=False, ncols=5, columnspacing=1)
    else:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", va="center", color="#8e9297")

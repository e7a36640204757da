"""Panels: every one has a title, a description, a unit and the dashboard's data source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol, Self, TypeVar

from grafana_foundation_sdk.builders import bargauge, stat, statetimeline, table, timeseries, xychart
from grafana_foundation_sdk.builders.common import StackingConfig, VizLegendOptions
from grafana_foundation_sdk.builders.dashboard import FieldColor, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    StackingMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    FieldColorModeId,
    Threshold,
    ThresholdsMode,
    ValueMap,
    ValueMappingResult,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat
from grafana_foundation_sdk.models.xychart import SeriesMapping, XYShowMode

from finetune_api.colours import PHASE_COLOUR
from finetune_monitoring.queries import PHASE_CODES
from finetune_monitoring.variables import DATASOURCE

JOB_LEGEND: Final = "{{finetune_namespace}}/{{finetune_job}}"


class Query(NamedTuple):
    """One query of a panel."""

    expr: str
    legend: str = ""
    """What a series is called; ``{{label}}`` stands for a label's value."""


class Text(NamedTuple):
    """What a panel says of itself."""

    title: str
    description: str


class Box(NamedTuple):
    """Size on the grid of 24 columns."""

    width: int
    height: int = 7


def series(text: Text, box: Box, unit: str, *queries: Query, stacked: bool = False, points: bool = False) -> timeseries.Panel:
    """Values over time."""
    panel = timeseries.Panel().line_width(1).fill_opacity(25 if stacked else 5).legend(_legend())
    if stacked:
        panel = panel.stacking(StackingConfig().mode(StackingMode.NORMAL).group("A")).draw_style(GraphDrawStyle.LINE)
    if points:
        panel = panel.show_points(VisibilityMode.ALWAYS).point_size(4)
    return _finish(panel, text, box, unit, queries)


def by_phase(text: Text, box: Box, *queries: Query) -> timeseries.Panel:
    """Counts by phase, in the phases' colours; the legend of each query must be the phase."""
    panel = series(text, box, "short", *queries, stacked=True)
    for phase, colour in PHASE_COLOUR.items():
        panel = panel.override_by_name(phase.value, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour.value})])
    return panel


def number(text: Text, box: Box, unit: str, query: Query, *, decimals: int | None = None, trend: bool = False) -> stat.Panel:
    """One value, large."""
    panel = stat.Panel().graph_mode(BigValueGraphMode.AREA if trend else BigValueGraphMode.NONE).color_mode(BigValueColorMode.VALUE)
    panel = panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps([Threshold(color="text")]))
    if decimals is not None:
        panel = panel.decimals(decimals)
    return _finish(panel, text, box, unit, [query], _Form(instant=not trend))


def alarm(text: Text, box: Box, unit: str, query: Query, *, orange: float, red: float) -> stat.Panel:
    """One value that turns orange and red."""
    steps = [Threshold(color="green"), Threshold(value=orange, color="orange"), Threshold(value=red, color="red")]
    panel = stat.Panel().graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.BACKGROUND)
    panel = panel.thresholds(ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return _finish(panel, text, box, unit, [query], _Form(instant=True))


def phase_now(text: Text, box: Box, query: Query) -> stat.Panel:
    """The phase by name and colour (P-11); the query gives :func:`finetune_monitoring.queries.phase_code`."""
    panel = stat.Panel().graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.BACKGROUND).mappings([_phases()])
    return _finish(panel, text, box, "none", [query], _Form(instant=True))


def phase_timeline(text: Text, box: Box, query: Query) -> statetimeline.Panel:
    """Phases over time, one row per job."""
    panel = statetimeline.Panel().mappings([_phases()]).show_value(VisibilityMode.AUTO).merge_values(merge_values=True).line_width(0)
    panel = panel.fill_opacity(80).color_scheme(FieldColor().mode(FieldColorModeId.FIXED)).legend(_legend(shown=False))
    return _finish(panel, text, box, "none", [query])


def bars(text: Text, box: Box, unit: str, query: Query) -> bargauge.Panel:
    """One bar per series, with its newest value."""
    return _finish(bargauge.Panel(), text, box, unit, [query], _Form(instant=True))


def rows(
    text: Text,
    box: Box,
    columns: Mapping[str, Query],
    *,
    names: Mapping[str, str],
    units: Mapping[str, str],
    behind: Mapping[str, str] | None = None,
) -> table.Panel:
    """A row per job: queries merged by their labels.

    ``names``: label -> heading, before the columns, and ``behind``: after them; all other labels are hidden. ``units``: column -> unit.
    """
    panel = table.Panel().filterable(filterable=True)
    for heading, unit in units.items():
        panel = panel.override_by_name(heading, [DynamicConfigValue("unit", unit)])
    if "Phase" in columns:
        panel = panel.override_by_name("Phase", [DynamicConfigValue("mappings", [_phases()]), _COLOURED_CELL])
    headings = {f"Value #{letter}": heading for letter, heading in zip("ABCDEFGHIJKL", columns, strict=False)}
    if len(columns) == 1:
        headings = {"Value": next(iter(columns))}
    transformations = [
        DataTransformerConfig(id_val="merge", options={}),
        DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "indexByName": {name: index for index, name in enumerate((*names, *headings, *(behind or {})))},
                "renameByName": {**names, **headings, **(behind or {})},
            },
        ),
    ]
    panel = panel.transformations(transformations)
    return _finish(panel, text, box, "short", list(columns.values()), _Form(instant=True, table=True))


def matrix(text: Text, box: Box, query: Query, labels: tuple[str, str, str], *, heading: str) -> table.Panel:
    """A table out of three labels of a query: a row and a column for each value of the first two, the third in the cells."""
    row, column, value = labels
    transformations = [
        DataTransformerConfig(id_val="groupingToMatrix", options={"rowField": row, "columnField": column, "valueField": value}),
        DataTransformerConfig(id_val="organize", options={"renameByName": {f"{row}\\{column}": heading}}),
    ]
    return _finish(table.Panel().transformations(transformations), text, box, "none", [query], _Form(instant=True, table=True))


def on_step(text: Text, box: Box, unit: str, *, step: str, value: str) -> xychart.Panel:
    """A curve per job over optimizer steps: rows of both queries are joined by time and job, then split by job."""
    names = {"Value #A": "Step", "Value #B": text.title}
    transformations = [
        DataTransformerConfig(id_val="merge", options={}),
        DataTransformerConfig(id_val="organize", options={"excludeByName": {"Time": True}, "renameByName": names}),
        DataTransformerConfig(id_val="partitionByValues", options={"fields": ["finetune_namespace", "finetune_job"], "keepFields": False}),
    ]
    panel = xychart.Panel().mapping(SeriesMapping.AUTO).show(XYShowMode.LINES).legend(_legend()).transformations(transformations)
    return _finish(panel, text, box, unit, [Query(step), Query(value)], _Form(table=True))


_COLOURED_CELL: Final = DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"})


class _Panel(Protocol):
    """What all builders of panels have."""

    def title(self, title: str) -> Self: ...
    def description(self, description: str) -> Self: ...
    def unit(self, unit: str) -> Self: ...
    def datasource(self, datasource: DataSourceRef) -> Self: ...
    def height(self, h: int) -> Self: ...
    def span(self, w: int) -> Self: ...
    def with_target(self, target: Builder[variants.Dataquery]) -> Self: ...


P = TypeVar("P", bound=_Panel)


class _Form(NamedTuple):
    """How a panel wants its answers."""

    instant: bool = False
    """The newest values only, not a range."""
    table: bool = False
    """As rows with labels as columns, not as curves."""


_CURVES: Final = _Form()


def _finish(panel: P, text: Text, box: Box, unit: str, queries: Sequence[Query], form: _Form = _CURVES) -> P:
    panel = panel.title(text.title).description(text.description).unit(unit).datasource(DATASOURCE).height(box.height).span(box.width)
    for letter, query in zip("ABCDEFGHIJKL", queries, strict=False):
        target = Dataquery().expr(query.expr).ref_id(letter).datasource(DATASOURCE)
        target = target.instant() if form.instant else target.range()
        target = target.format(PromQueryFormat.TABLE) if form.table else target.legend_format(query.legend or "__auto")
        panel = panel.with_target(target)
    return panel


def _legend(*, shown: bool = True) -> VizLegendOptions:
    return VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM).show_legend(shown)


def _phases() -> ValueMap:
    """Numbers of phases back to names and colours."""
    return ValueMap(
        {
            str(code): ValueMappingResult(text=phase.value, color=PHASE_COLOUR[phase].value, index=code - 1)
            for phase, code in PHASE_CODES.items()
        }
    )

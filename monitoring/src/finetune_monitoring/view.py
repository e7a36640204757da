"""A dashboard as somebody looks at it: variables chosen, a time range, and each panel's queries answered."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple, TypeAlias

from finetune_monitoring.prometheus import Prometheus, Series

Document: TypeAlias = Mapping[str, Any]
"""A dashboard or panel, as JSON."""
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_LABEL_VALUES = re.compile(r"label_values\((.+), (\w+)\)")


class UnknownVariableError(LookupError):
    """A query uses a variable that the dashboard does not have."""


MOST_POINTS: Final = 10_000
"""Of a range query; Prometheus refuses more than 11,000."""


class Mark(NamedTuple):
    """A moment that an annotation marks."""

    moment: float
    annotation: str
    title: str
    colour: str


class Answer(NamedTuple):
    """A query of a panel and what it gave."""

    ref: str
    legend: str
    series: list[Series]


@dataclass(frozen=True)
class View:
    """Where a dashboard is looked at."""

    prometheus: Prometheus
    start: float
    end: float
    scrape_seconds: float
    points: int = 120
    """Points per curve."""

    @property
    def step(self) -> float:
        """Seconds between two points, as Grafana's ``$__interval``."""
        return max((self.end - self.start) / self.points, self.scrape_seconds)

    @property
    def built_in(self) -> dict[str, str]:
        """Grafana's own variables; ``$__rate_interval`` by its rule."""
        rate = max(self.step + self.scrape_seconds, 4 * self.scrape_seconds)
        return {"__interval": _seconds(self.step), "__rate_interval": _seconds(rate), "__range": _seconds(self.end - self.start)}

    def variables(self, dashboard: Document, chosen: Mapping[str, str]) -> dict[str, str]:
        """Values of the dashboard's variables: ``chosen`` ones, everything where a variable allows it, else its first value."""
        values = dict(chosen)
        for variable in dashboard["templating"]["list"]:
            if variable["name"] not in values and variable["type"] != "datasource":
                values[variable["name"]] = self._choose(variable, values)
        return values

    def answers(self, panel: Document, variables: Mapping[str, str]) -> list[Answer]:
        """Ask all queries of a panel."""
        return [
            Answer(
                target["refId"], target.get("legendFormat", ""), self.ask(target["expr"], variables, instant=target.get("instant", False))
            )
            for target in panel["targets"]
        ]

    def marks(self, dashboard: Document, variables: Mapping[str, str]) -> list[Mark]:
        """Moments at which the dashboard's annotations begin to have a value, oldest first."""
        found = []
        for each in dashboard["annotations"].get("list", []):
            step = max(float(each["step"].removesuffix("s")), (self.end - self.start) / MOST_POINTS)
            query = substitute(each["expr"], {**variables, **self.built_in})
            for series in self.prometheus.range(query, self.start, self.end, step):
                moments = [moment for moment, _ in series.points]
                begun = (now for before, now in pairwise([-math.inf, *moments]) if now - before > 1.5 * step)
                title = name_of(series, each["titleFormat"])
                found += [Mark(moment, each["name"], title, each["iconColor"]) for moment in begun]
        return sorted(found)

    def ask(self, expr: str, variables: Mapping[str, str], *, instant: bool) -> list[Series]:
        """Ask one query."""
        query = substitute(expr, {**variables, **self.built_in})
        return self.prometheus.instant(query, self.end) if instant else self.prometheus.range(query, self.start, self.end, self.step)

    def _choose(self, variable: Document, values: Mapping[str, str]) -> str:
        if variable["type"] == "textbox":
            return str(variable["query"])
        if variable.get("includeAll"):
            return str(variable["allValue"])
        match = _LABEL_VALUES.fullmatch(variable["query"]["query"])
        assert match is not None, f"variable {variable['name']} asks for values of a label"
        found = self.prometheus.label_values(match[2], substitute(match[1], values))
        return found[0] if found else ""


def panels(dashboard: Document) -> Iterator[Document]:
    """Panels with queries."""
    yield from (panel for panel in dashboard["panels"] if panel["type"] != "row")


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Put values in place of variables. Raises :class:`UnknownVariableError`."""

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in values:
            raise UnknownVariableError(f"${name} in {text}")
        return values[name]

    return _VARIABLE.sub(value, text)


def name_of(series: Series, legend: str) -> str:
    """What a series is called in the legend."""
    if not legend or legend == "__auto":
        return ", ".join(series.labels.values()) or "value"
    return re.sub(r"\{\{(\w+)\}\}", lambda match: series.labels.get(match[1], ""), legend)


def merged(answers: list[Answer]) -> list[dict[str, Any]]:
    """Rows of a table: what the transformation ``merge`` makes of answers, by time and the labels that all of them have."""
    table: dict[tuple[object, ...], dict[str, Any]] = {}
    names = [set(series.labels) for answer in answers for series in answer.series]
    shared = sorted(set.intersection(*names)) if names else []
    for answer in answers:
        for series in answer.series:
            for moment, value in series.points:
                key = (moment, *(series.labels[name] for name in shared))
                column = f"Value #{answer.ref}" if len(answers) > 1 else "Value"
                table.setdefault(key, {"Time": moment}).update({**series.labels, column: value})
    return list(table.values())


def crossed(rows: list[dict[str, Any]], labels: tuple[str, str, str], heading: str) -> tuple[list[str], list[dict[str, Any]]]:
    """Columns and rows of a table: what the transformation ``groupingToMatrix`` makes of rows; ``heading``: name of the first column."""
    row, column, value = labels
    columns = dict.fromkeys(each[column] for each in rows)
    table: dict[str, dict[str, Any]] = {}
    for each in rows:
        table.setdefault(each[row], {heading: each[row]})[each[column]] = each[value]
    return [heading, *columns], list(table.values())


def _seconds(value: float) -> str:
    return f"{max(1, round(value * 1000))}ms"

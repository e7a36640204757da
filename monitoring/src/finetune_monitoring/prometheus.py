"""Asks a Prometheus, as Grafana does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import urllib3

TIMEOUT_SECONDS = 30.0


class QueryError(Exception):
    """Prometheus refused a query; the message holds what it said and the query."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of an answer."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]
    """(Unix seconds, value), oldest first; one point of an instant query."""

    @property
    def last(self) -> float:
        """The newest value."""
        return self.points[-1][1]


class Prometheus:
    """A Prometheus server by its address."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._http = urllib3.PoolManager(timeout=urllib3.Timeout(TIMEOUT_SECONDS), retries=False)

    def instant(self, expr: str, at: float) -> list[Series]:
        """Value at a moment. Raises :class:`QueryError`."""
        result = self._ask("query", {"query": expr, "time": f"{at:.3f}"}, expr)
        return [Series(row["metric"], (_point(row["value"]),)) for row in result]

    def range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """Values from ``start`` to ``end``, every ``step`` seconds. Raises :class:`QueryError`."""
        fields = {"query": expr, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step:.3f}"}
        return [Series(row["metric"], tuple(_point(value) for value in row["values"])) for row in self._ask("query_range", fields, expr)]

    def label_values(self, label: str, selector: str) -> list[str]:
        """Values of a label among the series of a selector."""
        answer = self._http.request("GET", f"{self._url}/api/v1/label/{label}/values", fields={"match[]": selector})
        return list(_data(answer, selector))

    def _ask(self, what: str, fields: Mapping[str, str], expr: str) -> list[dict[str, Any]]:
        answer = self._http.request("POST", f"{self._url}/api/v1/{what}", fields=dict(fields), encode_multipart=False)
        result: list[dict[str, Any]] = _data(answer, expr)["result"]
        return result


def _data(answer: urllib3.BaseHTTPResponse, expr: str) -> Any:
    body = json.loads(answer.data)
    if body["status"] != "success":
        raise QueryError(f"{body['error']} in: {expr}")
    return body["data"]


def _point(pair: list[Any]) -> tuple[float, float]:
    return float(pair[0]), float(pair[1])

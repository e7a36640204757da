"""The rules of Grafana's dashboard-linter, as a test of ours: data source, titles, units, PromQL, matchers, rate intervals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest

from finetune_api.contract import metrics
from finetune_monitoring.view import panels, substitute
from tests.support.dashboards import DASHBOARDS

WITHOUT_TARGET_LABELS = {
    "job": "chosen by namespace and name of the FineTuneJob: its series come from the operator and from pods that come and go",
    "compare": "as job",
    "fleet": "about all jobs, whichever replica of the operator tells of them",
}
"""Dashboards for which the rules about the labels job and instance make no sense, with the reason."""
TOTALS = {
    str(metric)
    for metric in (metrics.JOB_USAGE, metrics.JOB_LOST_STEPS, metrics.JOB_COST, metrics.UPLOAD_ERRORS, metrics.CHECKPOINTS_SKIPPED)
}
"""Counters whose value itself is meant: those of a job's status never begin anew; those of a pod are said to be of this attempt."""
UNITS = {"none", "short", "percentunit", "bytes", "s", "sci", "ops", "reqps", "dtdurations"}
BUILT_IN = {"__rate_interval": "5m", "__range": "1h", "__interval": "1m"}


def cases() -> Iterator[Any]:
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            yield pytest.param(dashboard, panel, id=f"{name}-{panel['title']}")


def variables(dashboard: dict[str, Any]) -> dict[str, str]:
    return BUILT_IN | {variable["name"]: "1" if variable["type"] == "textbox" else "x" for variable in dashboard["templating"]["list"]}


def selectors(node: Any, inside: tuple[str, ...] = ()) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Vector selectors of an expression, each with the functions around it."""
    if isinstance(node, promql_parser.VectorSelector):
        yield node, inside
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector, inside
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from selectors(argument, (*inside, node.func.name))
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from selectors(node.lhs, inside)
        yield from selectors(node.rhs, inside)
    elif isinstance(node, promql_parser.AggregateExpr | promql_parser.ParenExpr | promql_parser.UnaryExpr | promql_parser.SubqueryExpr):
        yield from selectors(node.expr, inside)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_template_variables(name: str) -> None:
    """template-datasource, -job, -instance, -on-time-change-reload; every variable is used."""
    dashboard = DASHBOARDS[name]
    listed = {variable["name"]: variable for variable in dashboard["templating"]["list"]}
    first = dashboard["templating"]["list"][0]
    assert (first["name"], first["type"], first["query"], first["label"]) == ("datasource", "datasource", "prometheus", "Data source")
    assert ({"job", "instance"} <= set(listed)) == (name not in WITHOUT_TARGET_LABELS)
    text = json.dumps(dashboard["panels"]) + json.dumps(list(listed.values()))
    for variable in listed.values():
        assert variable["label"]
        assert f"${variable['name']}" in text or f"${{{variable['name']}}}" in text
        if variable["type"] == "query":
            assert variable["refresh"] == 2
            assert variable["datasource"]["uid"] == "${datasource}"
            assert variable["query"]["query"].startswith("label_values(")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboard_itself(name: str) -> None:
    """Stable uid, no id, read-only (template-uneditable), times of whoever looks."""
    dashboard = DASHBOARDS[name]
    assert dashboard["uid"] == f"finetune-{name}"
    assert dashboard.get("id") is None
    assert dashboard["editable"] is False
    assert dashboard["timezone"] == "browser"
    assert "finetune" in dashboard["tags"]
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert sorted(set(numbers)) == sorted(numbers)
    titles = [panel["title"] for panel in dashboard["panels"]]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize(("dashboard", "panel"), list(cases()))
def test_panel(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    """panel-datasource, panel-title-description, panel-units, panel-no-targets; panels lie on the grid."""
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert panel["title"]
    assert panel["description"]
    assert not panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["targets"]
    assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    assert not [other for other in dashboard["panels"] if other is not panel and overlap(panel["gridPos"], other["gridPos"])]


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )


@pytest.mark.parametrize(("dashboard", "panel"), list(cases()))
def test_queries(dashboard: dict[str, Any], panel: dict[str, Any]) -> None:
    """target-promql, -rate-interval, -counter-agg, -histogram, -job, -instance; metrics and labels are those of the table."""
    known = {name: metric for metric in metrics.ALL for name in metrics.series_of(metric)}
    for target in panel["targets"]:
        assert target["datasource"]["uid"] == "${datasource}"
        for window in re.findall(r"[}\w]\[([^\]]+)\]", target["expr"]):
            assert window in ("$__rate_interval", "$__range"), window
        found = list(selectors(promql_parser.parse(substitute(target["expr"], variables(dashboard)))))
        assert found
        for selector, functions in found:
            if selector.name not in known:
                assert selector.name.startswith("process_"), selector.name
            else:
                labels = {matcher.name for matcher in selector.matchers.matchers}
                assert labels <= {*known[selector.name].labels, "job", "instance"}, (selector.name, labels)
            if selector.name.endswith(("_total", "_bucket")) and selector.name not in TOTALS:
                assert {"rate", "increase"} & set(functions), target["expr"]
        if dashboard["uid"].removeprefix("finetune-") not in WITHOUT_TARGET_LABELS:
            assert target["expr"].count('job=~"$job", instance=~"$instance"') == len(found)


def test_every_metric_is_on_a_dashboard() -> None:
    """What is worth serving is worth seeing; those that only other queries need are named."""
    text = json.dumps(list(DASHBOARDS.values()))
    unseen = {str(metric) for metric in metrics.ALL if not re.search(rf"{metric}(_bucket)?[{{\[]", text)}
    assert unseen <= UNSEEN


UNSEEN = {
    str(metric)
    for metric in (
        metrics.TOKENS_TOTAL, metrics.TOTAL_STEPS, metrics.JOB_TOTAL_STEPS, metrics.ATTEMPT, metrics.RUN, metrics.JOB_RUN, metrics.PHASE,
        metrics.CHECKPOINT_LAST_STEP, metrics.CHECKPOINT_LAST_SUCCESS, metrics.JOB_TOKENS_PER_SECOND, metrics.JOB_PODS,
        metrics.JOB_STARTED, metrics.JOBS, metrics.TRANSITIONS, metrics.OPERATOR_INFO, metrics.STALLED,
        metrics.MISSING_PARTS,
    )
}  # fmt: skip
"""For alerts, for people's own queries, or shown by another series."""

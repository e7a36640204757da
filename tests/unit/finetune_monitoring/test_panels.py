"""Every panel of every dashboard shows something: its own queries, asked of a real Prometheus that scraped real metrics pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from finetune_api.colours import PHASE_COLOUR
from finetune_api.models.status import Phase
from finetune_monitoring.queries import PHASE_CODES, phase_code
from finetune_monitoring.view import Document, View, crossed, merged, name_of, panels
from tests.support.dashboards import DASHBOARDS, empty_panels
from tests.support.monitored import history, live
from tests.support.scene import DURATION, HOUR, cast

CHOSEN = {"namespace": "team-b", "name": "big-sft"}
"""For the dashboard Job: a run on GPUs that lost a node and goes on."""
GRPO, DPO = {"namespace": "team-b", "name": "support-bot"}, {"namespace": "team-b", "name": "capped"}
OF_A_METHOD = {"Reward": GRPO, "Distance to the reference": GRPO, "Accuracy of preferences": DPO}
"""Panels that show something for jobs of some methods alone."""


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    """Three hours at their own pace."""
    with history(tmp_path_factory.mktemp("history")) as view:
        yield view


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[View]:
    """The same, scraped over HTTP."""
    with live(tmp_path_factory.mktemp("live")) as view:
        yield view


def test_every_query_returns_data_from_scraped_pages(scraped: View) -> None:
    """Issue 6: jobs that run, wait, were paused, resumed, failed, finished; scraped from the collectors of operator and supervisor."""
    assert empty_panels(scraped, CHOSEN, OF_A_METHOD) == []


def test_every_query_returns_data_from_history(past: View) -> None:
    assert empty_panels(past, CHOSEN, OF_A_METHOD) == []


def test_annotations_mark_phases_and_attempts(past: View) -> None:
    dashboard = DASHBOARDS["job"]
    variables = past.variables(dashboard, CHOSEN)
    marks = past.marks(dashboard, variables)
    entered = [mark.title for mark in marks if mark.annotation == "Phases"]
    assert entered == ["Validating", "Queued", "Starting", "Training", "Starting", "Starting", "Training"]
    assert [mark.title for mark in marks if mark.annotation == "Attempts"] == ["New attempt", "New attempt"]
    assert [mark.moment for mark in marks] == sorted(mark.moment for mark in marks)


def test_phases_have_the_colours_of_the_command_line() -> None:
    """P-11: wherever a dashboard shows a phase, its name and colour are those of the one table."""
    table = {str(PHASE_CODES[phase]): {"text": phase.value, "color": PHASE_COLOUR[phase].value} for phase in Phase}
    shown = {
        f"{name}/{panel['title']}": {code: {"text": result["text"], "color": result["color"]} for code, result in options.items()}
        for name, dashboard in DASHBOARDS.items()
        for panel in panels(dashboard)
        for options in phase_options(panel)
    }
    assert shown == dict.fromkeys(("job/Phase", "job/Phases", "compare/Outcome", "compare/Phases", "fleet/All jobs"), table)
    by_phase = next(panel for panel in panels(DASHBOARDS["fleet"]) if panel["title"] == "Jobs by phase")
    drawn = {each["matcher"]["options"]: each["properties"][0]["value"]["fixedColor"] for each in by_phase["fieldConfig"]["overrides"]}
    assert drawn == {phase.value: PHASE_COLOUR[phase].value for phase in Phase}


def phase_options(panel: Document) -> Iterator[dict[str, Any]]:
    """Tables of names and colours of a panel."""
    properties = (each for override in panel["fieldConfig"].get("overrides", []) for each in override["properties"])
    for mappings in (panel["fieldConfig"]["defaults"].get("mappings"), *(e["value"] for e in properties if e["id"] == "mappings")):
        yield from (mapping["options"] for mapping in mappings or ())


@pytest.mark.parametrize("name", [actor.name for actor in cast() if any(part.rows for part in actor.parts)])
def test_shares_of_time_are_at_most_the_whole(past: View, name: str) -> None:
    """A trainer tells the wall time of its rank group: the uses of a second make a second, however many GPUs."""
    panel = next(panel for panel in panels(DASHBOARDS["job"]) if panel["title"] == "Use of time")
    variables = past.variables(DASHBOARDS["job"], {"namespace": ".+", "name": name})
    totals: Counter[float] = Counter()
    for answer in past.answers(panel, variables):
        for series in answer.series:
            totals.update(dict(series.points))
    assert 0.9 < max(totals.values()) <= 1.001


@pytest.mark.parametrize(
    ("name", "phase"),
    [
        ("chat-lora", Phase.SUCCEEDED),
        ("chat-lora-hot", Phase.FAILED),
        ("support-bot", Phase.TRAINING),
        ("capped", Phase.PAUSED),
        ("next-in-line", Phase.QUEUED),
    ],
)
def test_the_phase_is_one_number_per_job(past: View, name: str, phase: Phase) -> None:
    """P-11: what stat panels and timelines map back to a name and a colour."""
    expr = phase_code(f'finetune_job="{name}"')
    (series,) = past.ask(expr, {}, instant=True)
    assert series.last == PHASE_CODES[phase]


def test_a_finished_job_is_still_seen_after_its_pods(past: View) -> None:
    """The operator re-exports the last numbers; the pods' own series have ended."""
    assert past.ask('finetune_train_step{finetune_job="chat-lora"}', {}, instant=True) == []
    (step,) = past.ask('finetune_job_step{finetune_job="chat-lora"}', {}, instant=True)
    assert step.last > 0
    (progress,) = past.ask('finetune_job_progress_ratio{finetune_job="chat-lora"}', {}, instant=True)
    assert progress.last == 1


def test_the_tables_have_a_row_per_job(past: View) -> None:
    """U-02: configuration and outcome side by side."""
    dashboard = DASHBOARDS["compare"]
    variables = past.variables(dashboard, {})
    by_title = {panel["title"]: panel for panel in panels(dashboard)}
    for title in ("Configuration", "Outcome"):
        rows = merged(past.answers(by_title[title], variables))
        assert {row["finetune_job"] for row in rows} == {"chat-lora", "chat-lora-hot", "support-bot", "big-sft", "capped", "next-in-line"}
    outcomes = {row["finetune_job"]: (row["reason"], row["Value #B"]) for row in merged(past.answers(by_title["Outcome"], variables))}
    assert outcomes["chat-lora-hot"] == ("LossDiverged", 1.5 * HOUR - 120)
    assert outcomes["capped"] == ("LimitReached", DURATION - 600)
    rates = {row["finetune_job"]: row["learning_rate"] for row in merged(past.answers(by_title["Configuration"], variables))}
    assert rates["chat-lora"] == "0.0002"
    assert rates["chat-lora-hot"] == "0.02"


def test_differences_leave_out_what_is_equal(past: View) -> None:
    """U-02: of jobs with one data set and one model, what sets them apart; nothing for a job on its own."""
    dashboard = DASHBOARDS["compare"]
    panel = next(panel for panel in panels(dashboard) if panel["title"] == "Differences")

    def table(names: str) -> tuple[list[str], dict[str, dict[str, str]]]:
        variables = past.variables(dashboard, {"namespace": ".+", "name": names})
        matrix = panel["transformations"][0]["options"]
        labels = (matrix["rowField"], matrix["columnField"], matrix["valueField"])
        columns, rows = crossed(merged(past.answers(panel, variables)), labels, "Parameter")
        return columns, {row.pop("Parameter"): row for row in rows}

    assert table("chat-lora|chat-lora-hot") == (
        ["Parameter", "team-a/chat-lora", "team-a/chat-lora-hot"],
        {"Learning rate": {"team-a/chat-lora": "0.0002", "team-a/chat-lora-hot": "0.02"}},
    )
    columns, rows = table(".+")
    assert set(rows) == {"Method", "Learning rate", "Replicas"}
    assert len(columns) == 7
    assert table("chat-lora") == (["Parameter"], {})


def test_the_fleet_tells_limits_and_failures_of_its_namespaces(past: View) -> None:
    by_title = {panel["title"]: panel for panel in panels(DASHBOARDS["fleet"])}

    def values(title: str, namespace: str, view: View = past) -> list[tuple[str, float]]:
        (answer,) = view.answers(by_title[title], view.variables(DASHBOARDS["fleet"], {"namespace": namespace}))
        return [(name_of(series, answer.legend), series.last) for series in answer.series]

    assert values("Failed jobs by class", "team-a") == [("LossDiverged", 1)]
    assert values("Failed jobs by class", "team-b") == []
    both_paused = replace(past, end=past.start + 1.4 * HOUR)
    assert [value for _, value in values("Paused", "team-b", both_paused)] == [2]
    assert [value for _, value in values("At their limits", "team-b", both_paused)] == [1]
    assert [value for _, value in values("At their limits", "team-a")] == [0]


def test_gpu_hours_and_costs_leave_out_jobs_on_cpu(past: View) -> None:
    """Most jobs of the scene train on CPU: the time of their ranks is no GPU time, and costs nothing."""
    by_title = {panel["title"]: panel for panel in panels(DASHBOARDS["fleet"])}
    variables = past.variables(DASHBOARDS["fleet"], {"gpu_price": "2"})
    hours = {
        series.labels["finetune_job"]: series.last
        for series in past.ask(
            "sum by (finetune_job) (increase(finetune_job_device_seconds_total[$__range])) / 3600", variables, instant=True
        )
    }
    assert hours["chat-lora"] > 0
    for title, price in (("GPU hours", 1), ("Cost", 3)):
        (answer,) = past.answers(by_title[title], variables)
        assert answer.series[0].last == pytest.approx(hours["big-sft"] * price, rel=1e-4)


def test_costs_are_at_the_price_of_the_gpu_type_else_at_the_one_above(past: View) -> None:
    """L-02: in all dashboards; the job on GPUs has a price of 3."""
    for title, dashboard, chosen in (("Cost", "job", CHOSEN), ("Cost", "fleet", {}), ("Outcome", "compare", CHOSEN)):
        panel = next(panel for panel in panels(DASHBOARDS[dashboard]) if panel["title"] == title)
        query = next(target["expr"] for target in panel["targets"] if "finetune_job_cost_total" in target["expr"])
        variables = past.variables(DASHBOARDS[dashboard], {**chosen, "gpu_price": "2"})
        (priced,) = past.ask(query, variables, instant=True)[:1]
        (unpriced,) = past.ask(query.replace("finetune_job_cost_total", "of_no_job_total"), variables, instant=True)[:1]
        assert priced.last == pytest.approx(unpriced.last * 3 / 2, rel=1e-4)


def test_curves_over_steps_hold_what_was_trained_again(past: View) -> None:
    """After a lost node a step appears twice: the curve of the new attempt lies over the old one."""
    panel = next(p for p in panels(DASHBOARDS["compare"]) if p["title"] == "Training loss")
    rows = merged(past.answers(panel, past.variables(DASHBOARDS["compare"], {})))
    points = [
        (row["Time"], row["Value #A"]) for row in rows if row["finetune_job"] == "big-sft" and "Value #A" in row and "Value #B" in row
    ]
    steps = [step for _, step in sorted(points)]
    assert any(later < earlier for earlier, later in pairwise(steps))

"""The table of faults: what tests tell is summed up, and the page shows the committed results."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.reliability import PAGE, RESULTS, Case, render, rows_of, take_over

KILL = Case("SIGKILL", "e2e", "Succeeded", 1, 12, 20.0)


def test_cases_of_a_fault_are_summed_up() -> None:
    (row,) = rows_of([KILL, Case("SIGKILL", "e2e", "Succeeded", 2, 30, 40.0), Case("SIGKILL", "e2e", "test failed")])
    assert row == {
        "fault": "SIGKILL", "where": "e2e", "times": 4, "outcome": "Succeeded, test failed", "stepsLost": 30, "seconds": [30.0, 40.0],
    }  # fmt: skip


def test_the_newest_session_replaces_what_was_known(tmp_path: Path) -> None:
    def session(name: str, case: Case) -> None:
        (tmp_path / name).write_text(json.dumps({**vars(case), "date": name[:1], "commit": "c"}) + "\n")

    session("1.jsonl", KILL)
    session("2.jsonl", Case("SIGKILL", "e2e", "Failed"))
    other = {**rows_of([Case("drain", "e2e", "Succeeded")])[0], "date": "0", "commit": "b"}
    rows = take_over(tmp_path.glob("*.jsonl"), [other])
    assert [(row["fault"], row["outcome"], row["date"]) for row in rows] == [("SIGKILL", "Failed", "2"), ("drain", "Succeeded", "0")]


def test_the_page_shows_the_results() -> None:
    """docs/reliability.md is generated (issue 4)."""
    assert PAGE.read_text(encoding="utf-8") == render(json.loads(RESULTS.read_text(encoding="utf-8")))

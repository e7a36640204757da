"""The table of faults: what tests tell is summed up, and the page shows the committed results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.reliability import PAGE, RESULTS, Case, render, rows_of, take_over

KILL = Case("SIGKILL", "e2e", "Succeeded", 1, 12, 20.0)


def test_cases_of_a_fault_are_summed_up() -> None:
    (row,) = rows_of([KILL, Case("SIGKILL", "e2e", "Succeeded", 2, 30, 40.0), Case("SIGKILL", "e2e", "test failed")])
    assert row == {
        "fault": "SIGKILL", "where": "e2e", "times": 4, "outcome": "Succeeded, test failed", "stepsLost": 30, "seconds": [30.0, 40.0],
    }  # fmt: skip


def session(folder: Path, date: str, case: Case) -> None:
    (folder / f"{date}.jsonl").write_text(json.dumps({**vars(case), "date": date, "commit": "c"}) + "\n")


def test_the_newest_session_replaces_what_was_known(tmp_path: Path) -> None:
    session(tmp_path, "1", KILL)
    session(tmp_path, "2", Case("SIGKILL", "e2e", "Failed"))
    other = {**rows_of([Case("drain", "e2e", "Succeeded")])[0], "date": "0", "commit": "b"}
    rows = take_over(tmp_path.glob("*.jsonl"), [other])
    assert [(row["fault"], row["outcome"], row["date"]) for row in rows] == [("SIGKILL", "Failed", "2"), ("drain", "Succeeded", "0")]


@pytest.mark.parametrize(
    ("known", "newer", "stays"),
    [
        (Case("cycles", "e2e", "same losses", 20), Case("cycles", "e2e", "same losses", 2), True),
        (Case("cycles", "e2e", "same losses", 2), Case("cycles", "e2e", "same losses", 2), False),
        (Case("cycles", "e2e", "same losses", 20), Case("cycles", "e2e", "test failed", 1), False),
        (Case("cycles", "e2e", "test failed", 20), Case("cycles", "e2e", "same losses", 2), False),
    ],
)
def test_a_quick_session_that_found_the_same_replaces_no_longer_one(tmp_path: Path, known: Case, newer: Case, stays: bool) -> None:
    session(tmp_path, "1", known)
    session(tmp_path, "2", newer)
    (row,) = take_over(tmp_path.glob("*.jsonl"), [])
    assert (row["date"], row["times"]) == (("1", known.times) if stays else ("2", newer.times))


def test_the_page_shows_the_results() -> None:
    """docs/reliability.md is generated (issue 4)."""
    assert PAGE.read_text(encoding="utf-8") == render(json.loads(RESULTS.read_text(encoding="utf-8")))

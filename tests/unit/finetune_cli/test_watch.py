import itertools
from collections.abc import Iterator
from datetime import datetime

import pytest

from finetune_api.models.status import Phase
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.view import describe_changes, progress_line, render_bar, render_summary
from finetune_cli.watch import follow_job, has_ended
from tests.unit.finetune_cli.builders import make_checkpoint, make_job, make_progress, recording_console


def noon() -> datetime:
    return datetime(2026, 11, 1, 12, 0, 0)  # noqa: DTZ001 - local time of a terminal


def life() -> Iterator[Job]:
    """A run that is paused, resumed and ends."""
    attempt = {"run": 1, "attempt": 1, "reason": "Created", "startedAt": "2026-11-01T12:00:00Z"}
    resumed = {"run": 2, "attempt": 2, "reason": "Resumed", "startedAt": "2026-11-01T12:01:00Z", "fromStep": 40}
    checkpoint = {"latest": make_checkpoint(40, trigger="pause")}
    yield make_job("Starting", run=1)
    yield make_job("Training", progress=make_progress(1, loss=6.2), attempts=[attempt], attemptCount=1)
    yield make_job("Training", progress=make_progress(3, loss=6.0), attempts=[attempt], attemptCount=1)
    yield make_job("Training", progress=make_progress(39, loss=4.1), attempts=[attempt], attemptCount=1)
    yield make_job("Pausing", progress=make_progress(40), attempts=[attempt], attemptCount=1)
    yield make_job("Paused", reason="UserRequested", progress=make_progress(40), checkpoints=checkpoint, attempts=[attempt], attemptCount=1)
    yield make_job("Training", progress=make_progress(41), checkpoints=checkpoint, attempts=[attempt, resumed], attemptCount=2)
    yield make_job(
        "Succeeded", progress=make_progress(120, loss=1.5), checkpoints=checkpoint, attempts=[attempt, resumed], attemptCount=2,
        artifacts={"finalUri": "s3://finetune/demo/final"},
    )  # fmt: skip
    raise AssertionError("a job that has ended is no longer followed")


def test_plain_output_is_a_line_per_change() -> None:
    """A log file is no terminal: no bar, no repeated lines, every phase, attempt and checkpoint once."""
    console = recording_console()
    ended = follow_job(life(), console, clock=noon)
    assert ended.phase is Phase.SUCCEEDED
    assert [line.rstrip() for line in console.export_text().splitlines()] == [
        "12:00:00  Starting run 1",
        "12:00:00  attempt 1 from step 0 (Created)",
        "12:00:00  Training from step 1 of 120",
        "12:00:00  Training  1/120  0%  loss 6.2000",
        "12:00:00  Training  39/120  32%  loss 4.1000",
        "12:00:00  Pausing",
        "12:00:00  checkpoint of step 40 complete (pause, 3.1 MB)",
        "12:00:00  Paused (UserRequested) at step 40: checkpoint of step 40 is complete, 0 pods",
        "12:00:00  attempt 2 from step 40 (Resumed)",
        "12:00:00  Training from step 41 of 120",
        "12:00:00  Succeeded",
    ]


def test_terminal_output_has_the_bar_and_the_changes() -> None:
    """T-07."""
    console = recording_console(terminal=True)
    follow_job(life(), console, clock=noon)
    shown = console.export_text()
    assert "checkpoint of step 40 complete" in shown
    assert "120/120  100%  loss 1.5000  checkpoint 40  attempt 2" in shown


def test_following_can_end_at_any_condition() -> None:
    reached = follow_job(life(), recording_console(), until=lambda job: job.phase is Phase.PAUSED, clock=noon)
    assert reached.status.progress is not None
    assert reached.status.progress.step == 40


def test_a_stream_that_ends_early_is_an_error_that_says_where_the_job_was() -> None:
    with pytest.raises(CliError, match=r"can no longer be followed; phase Training \(no reason given\)"):
        follow_job(iter([make_job("Training")]), recording_console(), clock=noon)


@pytest.mark.parametrize(
    ("phase", "ended"), [("Paused", False), ("Stopped", False), ("Succeeded", True), ("Failed", True), ("Cancelled", True)]
)
def test_a_pause_is_no_end(phase: str, ended: bool) -> None:
    assert has_ended(make_job(phase)) is ended


def test_bar_shows_what_is_known() -> None:
    """T: phase, step, loss, tokens per second, time left, checkpoint and attempts in one line."""
    console = recording_console()
    progress = make_progress(54, loss=4.21, tokensPerSecond=1234.0, etaSeconds=62)
    console.print(render_bar(make_job("Training", progress=progress, checkpoints={"latest": make_checkpoint(40)}, attemptCount=2)))
    (line,) = console.export_text().splitlines()
    assert line.startswith("Training")
    assert line.rstrip().endswith("54/120  45%  loss 4.2100  1.2k tok/s  ETA 1m02s  checkpoint 40  attempt 2")


def test_lost_steps_are_said() -> None:
    attempt = {"run": 2, "attempt": 2, "reason": "NodeLost", "startedAt": "2026-11-01T12:00:00Z", "fromStep": 40, "lostSteps": 7}
    lines = [
        line.plain
        for line in describe_changes(make_job("Training", attemptCount=1), make_job("Training", attempts=[attempt], attemptCount=2))
    ]
    assert lines == ["attempt 2 from step 40 (NodeLost)", "7 steps are trained again: they came after the last complete checkpoint"]


def test_resting_phases_have_no_line_of_figures() -> None:
    assert progress_line(None, make_job("Paused", progress=make_progress(40))) is None
    assert progress_line(None, make_job("Training")) is None


def test_summary_of_a_failure_has_class_message_log_and_advice() -> None:
    failure = {
        "class": "DataError",
        "message": "train.jsonl line 7 is no JSON",
        "lastLogLines": "Traceback\nValueError",
        "advice": "Mend the named row.",
    }
    shown = render_summary(make_job("Failed", failure=failure)).plain
    assert shown.splitlines() == ["Failed: DataError", "train.jsonl line 7 is no JSON", "Traceback", "ValueError", "Mend the named row."]


def test_what_was_shown_before_is_not_told_again() -> None:
    """A second following of the same job begins where the first ended."""
    console = recording_console()
    paused, training, *rest = list(itertools.islice(life(), 5, 8))
    follow_job(iter([paused, training, *rest]), console, after=paused, clock=noon)
    assert [line.rstrip() for line in console.export_text().splitlines()] == [
        "12:00:00  attempt 2 from step 40 (Resumed)",
        "12:00:00  Training from step 41 of 120",
        "12:00:00  Succeeded",
    ]

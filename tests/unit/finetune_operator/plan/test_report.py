from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from finetune_api.contract.progress import CheckpointReport, FineTuneProgress, Finished, Stopped
from finetune_api.contract.store import BestCheckpoint, UsageSeconds
from finetune_api.models.status import StatusProgress
from finetune_operator.plan.report import MAX_REPORT_CHARS, Merged, Report, is_urgent, news_in, news_of, read_report, report_of


def checkpoint(step: int, *, attempt: int = 1, uri: str = "s3://b/x") -> CheckpointReport:
    return CheckpointReport(
        attempt=attempt, step=step, uri=uri, size_bytes=1, created_at="2026-11-21T08:00:00Z", trigger="steps", eval_loss=1.23456789
    )


def post(**changes: Any) -> FineTuneProgress:
    return FineTuneProgress(**{"contract_version": 1, "run": 1, "attempt": 1, "phase": "Training", **changes})


def stored(report: FineTuneProgress, merged: Merged | None = None) -> StatusProgress:
    return StatusProgress(run=report.run, attempt=report.attempt, phase=report.phase, report=report_of(report, merged or Merged()))


def test_what_the_status_holds_is_not_repeated() -> None:
    everything = post(checkpoints=[checkpoint(10), checkpoint(20)], facts={"dtype": "float32", "trainRows": "9"})
    merged = Merged(frozenset({(1, 10, True)}), {"dtype": "float32", "trainRows": "8"})
    report = read_report(stored(everything, merged))
    assert ([c.step for c in report.checkpoints], report.facts) == ([20], {"trainRows": "9"})


def test_a_quiet_report_is_nearly_nothing() -> None:
    assert report_of(post(), Merged()) == "{}"


def test_numbers_are_short() -> None:
    text = report_of(
        post(
            checkpoints=[checkpoint(10)],
            best=BestCheckpoint(step=1, attempt=1, metric="eval_loss", value=0.123456789),
            usage=UsageSeconds(productive=1.23456789),
            finished=Finished(step=9, final_uri="s3://b/final", source="last", metrics={"loss": 1.0}),
        ),
        Merged(),
    )
    document = json.loads(text)
    assert document["checkpoints"][0]["evalLoss"] == 1.23457
    assert (document["best"]["value"], document["usage"], "metrics" in document["finished"]) == (0.123457, {"productive": 1.2}, False)


@given(uri=st.integers(1, 2048), facts=st.integers(0, 60), warnings=st.integers(0, 40), size=st.integers(0, 900))
def test_a_report_always_fits(uri: int, facts: int, warnings: int, size: int) -> None:
    """status.progress.report has at most 6144 characters; what decides (stopped, finished) is never dropped."""
    text = report_of(
        post(
            checkpoints=[checkpoint(step, uri="s3://" + "u" * uri) for step in range(9)],
            facts={f"fact{n}": "v" * size for n in range(facts)},
            warnings={f"Warning{n}": "w" * size for n in range(warnings)},
            stopped=Stopped(command_id="pause-1-2", step=7, saved=True),
            finished=Finished(step=7, final_uri="s3://" + "f" * uri, source="best"),
        ),
        Merged(),
    )
    report = Report.model_validate_json(text)
    assert len(text) <= MAX_REPORT_CHARS
    assert report.stopped is not None
    assert report.finished is not None


def test_a_report_of_another_version_is_no_report() -> None:
    assert read_report(StatusProgress(report="not json")) == Report()
    assert read_report(None) == Report()


def test_numbers_alone_are_no_news() -> None:
    """Design §4: a periodic write that comes back as an event marks nothing dirty."""
    assert news_of(post(step=5, loss=1.0)) == news_of(post(step=6, loss=0.9)) == news_in(stored(post(step=7)))


def test_saving_is_part_of_training() -> None:
    assert news_of(post(phase="Saving")) == news_of(post(phase="Uploading")) == news_of(post(phase="Training"))


def test_what_was_merged_goes_and_is_no_news() -> None:
    before = news_in(stored(post(checkpoints=[checkpoint(10)], facts={"a": "1"})))
    after = news_in(stored(post(checkpoints=[checkpoint(10)], facts={"a": "1"}), Merged(frozenset({(1, 10, True)}), {"a": "1"})))
    assert after < before


def test_what_must_be_stored_before_the_answer() -> None:
    """stopped, finished, new checkpoints, attempts and carried out commands are urgent; phases, facts and warnings are not."""
    quiet = news_of(post())
    urgent = [
        post(attempt=2),
        post(run=2),
        post(checkpoints=[checkpoint(10)]),
        post(stopped=Stopped(command_id="pause-1", step=1, saved=True)),
        post(finished=Finished(step=1, final_uri="s3://b/f", source="last")),
        post(acknowledged=["checkpoint/1"]),
    ]
    assert all(is_urgent(news_of(each) - quiet) for each in urgent)
    for each in (post(phase="Evaluating"), post(facts={"a": "1"}), post(warnings={"W": "text"})):
        news = news_of(each) - quiet
        assert news
        assert not is_urgent(news)

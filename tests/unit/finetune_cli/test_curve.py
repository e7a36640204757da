import json
from pathlib import Path

import pytest

from finetune_cli.curve import Point, draw_curve, join_attempts, read_curve, read_points, summarise_curve
from finetune_cli.errors import CliError
from finetune_cli.store import DirectoryStore


def row(attempt: int, step: int, loss: float | None) -> str:
    return json.dumps({"attempt": attempt, "step": step, "loss": loss, "grad_norm": 1.0})


def test_a_branch_that_was_abandoned_is_not_part_of_the_curve() -> None:
    """Attempt 1 got to step 6, attempt 2 went on from checkpoint 4 and is at step 5: step 6 of attempt 1 no longer counts."""
    first = [Point(1, step, 10.0 - step) for step in range(1, 7)]
    curve = join_attempts([*first, Point(2, 5, 4.5)])
    assert [(point.attempt, point.step) for point in curve.points] == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5)]
    assert curve.resumed_at == (5,)


def test_an_attempt_from_scratch_replaces_all_before_it() -> None:
    curve = join_attempts([Point(1, 1, 5.0), Point(1, 2, 4.0), Point(2, 1, 5.5)])
    assert curve.points == (Point(2, 1, 5.5),)


def test_rows_without_a_loss_and_half_written_rows_are_left_out() -> None:
    assert read_points([row(1, 1, 6.0), row(1, 2, None), '{"attempt": 1, "st']) == [Point(1, 1, 6.0)]


def test_curve_is_read_from_all_attempts_of_a_store(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/attempt-1.jsonl").write_text("\n".join(row(1, step, 6.0 - step) for step in (1, 2)))
    (tmp_path / "metrics/attempt-10.jsonl").write_text(row(10, 3, 1.0) + "\n")
    (tmp_path / "metrics/notes.txt").write_text("no metrics")
    curve = read_curve(DirectoryStore(tmp_path))
    assert [point.step for point in curve.points] == [1, 2, 3]
    assert summarise_curve(curve).startswith("loss 5.0000 → 1.0000 over 3 recorded steps")
    assert "resumed at step 3" in summarise_curve(curve)


def test_a_store_without_metrics_is_said(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="has no losses yet"):
        read_curve(DirectoryStore(tmp_path))


def test_drawing_fits_the_terminal_and_marks_the_resume() -> None:
    """T-03: the loss curve, in the terminal."""
    points = [Point(1, step, 6.0 / step) for step in range(1, 41)] + [Point(2, step, 6.0 / step) for step in range(41, 81)]
    drawn = draw_curve(join_attempts(points), 80, color=False)
    lines = drawn.splitlines()
    assert max(map(len, lines)) <= 80
    assert "(step)" in drawn
    assert "(loss)" in drawn
    assert "\x1b" not in drawn
    assert drawn.count("⡇") + drawn.count("⢸") >= 10, "the vertical line of the resume"


def test_a_single_point_can_be_drawn() -> None:
    assert "(step)" in draw_curve(join_attempts([Point(1, 1, 6.0)]), 60, color=True)

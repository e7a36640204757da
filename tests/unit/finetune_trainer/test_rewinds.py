"""What a rewind does is a function of the step alone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetune_api.contract.store import MAX_REWINDS, Rewind
from finetune_trainer.rewinds import after_divergence, data_position, describe, rate_factor

ONCE = [Rewind(step=30, diverged_step=38, skipped=8)]


def test_rows_between_are_left_out_and_rates_halved() -> None:
    """F-13: back to step 30; step 31 trains the rows of step 39 at half the rate."""
    assert [data_position(step, ONCE) for step in (30, 31, 32)] == [30, 39, 40]
    assert [rate_factor(step, ONCE) for step in (30, 31)] == [1.0, 0.5]


def test_a_second_divergence_skips_on_from_the_first() -> None:
    twice = after_divergence(ONCE, step=30, diverged_step=33)
    assert data_position(31, twice) == data_position(33, ONCE) + 1
    assert rate_factor(31, twice) == 0.25
    later = after_divergence(ONCE, step=60, diverged_step=61)
    assert [data_position(step, later) for step in (60, 61)] == [68, 70]
    assert [rate_factor(step, later) for step in (60, 61)] == [0.5, 0.25]


def test_at_most_twice() -> None:
    twice = after_divergence(ONCE, step=30, diverged_step=33)
    assert len(twice) == MAX_REWINDS
    assert after_divergence(twice, step=30, diverged_step=31) == twice


def test_nothing_to_leave_out_adds_nothing() -> None:
    assert after_divergence([], step=30, diverged_step=30) == []


@given(st.integers(0, 50), st.integers(1, 20), st.integers(0, 60), st.integers(1, 20))
def test_no_rows_of_a_divergence_are_trained_again(first: int, width: int, second: int, other: int) -> None:
    """Wherever the second one is gone back to: every step after it trains rows behind those that diverged."""
    once = after_divergence([], step=first, diverged_step=first + width)
    twice = after_divergence(once, step=second, diverged_step=second + other)
    diverged_at = data_position(second + other, once)
    assert all(data_position(step, twice) > diverged_at for step in range(second + 1, second + 100))
    positions = [data_position(step, twice) for step in range(1, 200)]
    assert positions == sorted(set(positions))


def test_people_are_told() -> None:
    assert describe(ONCE) == (
        "The training diverged by step 38: went back to step 30, left out the rows of 8 steps, learning rate x 0.5 (1 of 2)."
    )
    assert describe([]) == ""

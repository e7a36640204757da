"""Split, limit, weights and samples depend on the seed alone (D-17, E-16, E-19, E-21, AC-10)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.prepare.merging import evaluation_rows, limited_rows, sample_rows, training_rows, weighted_rows


def test_a_tenth_of_a_thousand() -> None:
    """AC-10: 100 rows evaluate; the same ones for the same seed, others for another."""
    first = evaluation_rows(1000, 0.1, seed=42)
    assert len(set(first.tolist())) == 100
    assert first.tolist() == evaluation_rows(1000, 0.1, seed=42).tolist() == sorted(first.tolist())
    assert first.tolist() != evaluation_rows(1000, 0.1, seed=43).tolist()


@given(st.integers(0, 500), st.floats(0, 1), st.integers(0, 999_999))
def test_both_sides_have_rows(rows: int, ratio: float, seed: int) -> None:
    """Whatever the ratio, something is left to train and, unless it is 0, something evaluates."""
    count = len(evaluation_rows(rows, ratio, seed))
    assert count == 0 if ratio == 0 or rows < 2 else 1 <= count <= rows - 1


@pytest.mark.parametrize(("rows", "count"), [([5, 7, 9, 11, 13, 15, 17], 5), ([3, 4], 2)])
def test_samples_are_distinct_training_rows(rows: list[int], count: int) -> None:
    """AC-67, V-03: five distinct rows of the training set, or as many as there are."""
    chosen = sample_rows(rows, 5, seed=1)
    assert len(set(chosen)) == count
    assert set(chosen) <= set(rows)
    assert chosen == sample_rows(rows, 5, seed=1)


def test_a_weight_is_how_often_a_row_is_trained() -> None:
    """D-17: whole turns of all rows, and a share of them drawn by the seed."""
    rows, sources = np.arange(30), np.repeat([0, 1, 2], 10)
    taken = weighted_rows(rows, sources, [1.0, 2.5, 0.3], seed=7).tolist()
    counts = [taken.count(row) for row in rows]
    assert counts[:10] == [1] * 10
    assert sorted(counts[10:20]) == [2] * 5 + [3] * 5
    assert sorted(counts[20:]) == [0] * 7 + [1] * 3
    assert taken == weighted_rows(rows, sources, [1.0, 2.5, 0.3], seed=7).tolist()
    assert weighted_rows(rows[:10], sources, [1.0, 2.5, 0.3], seed=7).tolist() == rows[:10].tolist()
    assert len(weighted_rows(rows[:2], sources, [0.01], seed=7)) == 1, "a source that is there is never left out"


def test_the_limit_takes_a_share_of_each_source() -> None:
    """E-21: at random, for the first rows would all be of one source."""
    chosen = limited_rows(1000, 100, seed=1).tolist()
    assert len(set(chosen)) == 100
    assert 30 < sum(row < 500 for row in chosen) < 70
    assert limited_rows(5, 0, seed=1).tolist() == limited_rows(5, 9, seed=1).tolist() == [0, 1, 2, 3, 4]


def test_a_share_is_trained_and_the_rest_left_out() -> None:
    """E-17, X28: of 100 rows 0.1 evaluate and 0.5 train, no row does both; which ones is the seed's to say."""
    evaluation = evaluation_rows(100, 0.1, 42)
    rest = np.setdiff1d(np.arange(100), evaluation)
    trained = training_rows(rest, 0.5, 100, 42)
    assert len(trained) == len(set(trained.tolist())) == 50
    assert set(trained.tolist()) <= set(rest.tolist())
    assert trained.tolist() == sorted(trained.tolist()) != training_rows(rest, 0.5, 100, 43).tolist()
    assert training_rows(rest, None, 100, 42) is rest
    assert len(training_rows(rest, 0.9, 100, 42)) == 90
    assert len(training_rows(rest, 0.01, 10, 42)) == 1

"""The split depends on the seed alone (E-16, E-19, AC-10)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.prepare.split import evaluation_rows, sample_rows


def test_a_tenth_of_a_thousand() -> None:
    """AC-10: 100 rows evaluate; the same ones for the same seed, others for another."""
    first = evaluation_rows(1000, 0.1, seed=42)
    assert len(set(first.tolist())) == 100
    assert first.tolist() == evaluation_rows(1000, 0.1, seed=42).tolist() == sorted(first.tolist())
    assert first.tolist() != evaluation_rows(1000, 0.1, seed=43).tolist()


@given(st.integers(0, 500), st.floats(0, 0.9), st.integers(0, 999_999))
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

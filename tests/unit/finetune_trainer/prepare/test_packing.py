"""Packing loses no row and overfills no sequence (E-24)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.prepare.packing import pack


@given(st.lists(st.integers(1, 64), max_size=200))
def test_every_row_is_packed_once_and_fits(lengths: list[int]) -> None:
    """And no two sequences could have been one."""
    bins = pack(lengths, 64)
    assert sorted(row for rows in bins for row in rows) == list(range(len(lengths)))
    filled = [sum(lengths[row] for row in rows) for rows in bins]
    assert all(0 < tokens <= 64 for tokens in filled)
    smallest = sorted(filled)[:2]
    assert len(smallest) < 2 or sum(smallest) > 64


def test_the_fullest_fitting_sequence_is_taken() -> None:
    """Best fit, longest first, ties in the order of rows."""
    assert pack([5, 3, 2, 5], 8) == [[0, 1], [3, 2]]
    assert pack([4, 4, 4], 4) == [[0], [1], [2]]


@pytest.mark.parametrize("length", [0, 9])
def test_a_row_that_cannot_fit_is_a_bug(length: int) -> None:
    """Rows are cut before they are packed."""
    with pytest.raises(ValueError, match=r"outside 1\.\.8"):
        pack([length], 8)

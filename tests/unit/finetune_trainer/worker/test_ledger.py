"""Best evaluation and early stopping, as the Trainer has them (OP-06)."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from finetune_api.contract.store import BestCheckpoint
from finetune_trainer.worker.ledger import LOWEST_LOSS, Ledger


def after(values: list[float], threshold: float = 0.005) -> Ledger:
    """Ledger after evaluations at steps 10, 20, ..."""
    ledger = Ledger()
    for number, value in enumerate(values, start=1):
        ledger = ledger.after(value, step=10 * number, attempt=1, threshold=threshold)
    return ledger


def test_patience_two() -> None:
    """AC-25: 0.990 is a gain of 0.010; the next two gains are below 0.005: exhausted after the fourth evaluation, not before."""
    values = [1.000, 0.990, 0.987, 0.986]
    assert [after(values[:count]).is_exhausted(2) for count in range(1, 5)] == [False, False, False, True]


def test_any_gain_makes_a_new_best() -> None:
    """Also one below the threshold; an equal value does not."""
    best = after([1.0, 0.999, 0.999, 1.2]).best
    assert best == BestCheckpoint(step=20, attempt=1, metric=LOWEST_LOSS.metric, value=0.999)


def test_a_slow_steady_fall_stops() -> None:
    """The gain is measured against the best of all, not against the last counted one: as the Trainer does it."""
    assert after([1.0, 0.997, 0.994, 0.991]).early_stopping.evaluations_without_gain == 3


def test_zero_patience_never_stops() -> None:
    """0 = off (S-06)."""
    assert not after([1.0] * 200).is_exhausted(0)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=30), st.floats(0.001, 1))
def test_the_best_is_the_first_lowest(values: list[float], threshold: float) -> None:
    """And the count never exceeds the evaluations since."""
    ledger = after(values, threshold)
    assert ledger.best is not None
    assert ledger.best.value == min(values) == ledger.early_stopping.best_value
    assert ledger.best.step == 10 * (values.index(min(values)) + 1)
    assert 0 <= ledger.early_stopping.evaluations_without_gain < len(values)
    assert not math.isnan(ledger.best.value)

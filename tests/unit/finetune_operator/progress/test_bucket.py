from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.progress.bucket import TokenBucket
from tests.support.fake_api import Clock


def test_a_burst_then_the_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(20, clock=clock.monotonic)
    assert [bucket.take() for _ in range(21)] == [True] * 20 + [False]
    assert bucket.wait_seconds() == pytest.approx(0.05)
    clock.advance(0.05)
    assert bucket.take()


def test_what_cannot_wait_is_paid_back() -> None:
    clock = Clock()
    bucket = TokenBucket(10, clock=clock.monotonic, burst=2)
    for _ in range(100):
        bucket.force()
    assert bucket.wait_seconds() == pytest.approx(0.3)


@given(st.lists(st.floats(0, 0.5), max_size=60))
def test_never_more_than_burst_and_rate_allow(pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(5, clock=clock.monotonic, burst=3)
    taken = 0
    for pause in pauses:
        clock.advance(pause)
        taken += bucket.take()
        assert taken <= 3 + clock.monotonic() * 5 + 1e-6

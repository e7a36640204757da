from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_operator.queue import MAX_BACKOFF_SECONDS, RetryLater, WorkQueue
from tests.support.fake_api import Clock

Work = Callable[[str], float | None]


class Bench:
    """A queue on a clock that moves when told to, worked by hand."""

    def __init__(self, work: Work = lambda _key: -1.0) -> None:
        self.clock = Clock()
        self.done: list[str] = []
        self.results: list[str] = []

        async def run(key: str) -> float | None:
            self.done.append(key)
            return work(key)

        self.queue: WorkQueue[str] = WorkQueue(
            run,
            clock=self.clock.monotonic,
            rng=random.Random(1),  # noqa: S311 - spreads, in tests always alike
            resync_seconds=600,
            on_result=lambda _key, result, _seconds: self.results.append(result),
        )

    async def drain(self) -> None:
        """Work on everything that is due."""
        while (key := self.queue.take()) is not None:
            await self.queue.do(key)


async def test_a_key_is_in_line_once() -> None:
    bench = Bench()
    for _ in range(5):
        bench.queue.add("a")
    await bench.drain()
    assert bench.done == ["a"]


async def test_the_earliest_wish_wins() -> None:
    bench = Bench()
    bench.queue.add("a", 60)
    bench.queue.add("a", 5)
    bench.queue.add("a", 30)
    bench.clock.advance(5)
    await bench.drain()
    bench.clock.advance(120)
    await bench.drain()
    assert bench.done == ["a"]


async def test_a_key_is_never_in_two_hands() -> None:
    """Serial per key: what arrives during work is done after it."""
    bench = Bench()
    bench.queue.add("a")
    key = bench.queue.take()
    assert key == "a"
    bench.queue.add("a")
    assert bench.queue.take() is None
    await bench.queue.do("a")
    await bench.drain()
    assert bench.done == ["a", "a"]


async def test_failures_back_off_up_to_five_minutes_and_a_success_forgets_them() -> None:
    failing = True

    def work(_key: str) -> float | None:
        if failing:
            raise ValueError("broken")
        return -1.0

    bench = Bench(work)
    bench.queue.add("a")
    waits = []
    for _ in range(12):
        await bench.drain()
        due = bench.queue.next_due
        assert due is not None
        waits.append(due - bench.clock.monotonic())
        bench.clock.advance(waits[-1] + 0.001)
    for exponent, wait in enumerate(waits):
        longest = min(MAX_BACKOFF_SECONDS, 2.0**exponent)
        assert longest / 2 <= wait <= longest
    failing = False
    await bench.drain()
    failing = True
    bench.queue.add("a")
    await bench.drain()
    due = bench.queue.next_due
    assert due is not None
    assert due - bench.clock.monotonic() <= 1.0


async def test_an_event_does_not_cut_a_back_off_short() -> None:
    """Else a job whose object keeps changing would fail as fast as it changes."""

    def work(_key: str) -> float | None:
        bench.queue.add("a")
        raise ValueError("broken")

    bench = Bench(work)
    bench.queue.add("a")
    await bench.drain()
    assert bench.done == ["a"]
    assert bench.results == ["error"]


async def test_work_may_ask_to_be_done_again_without_having_failed() -> None:
    def work(_key: str) -> float | None:
        if len(bench.done) == 1:
            raise RetryLater(2.0)
        return -1.0

    bench = Bench(work)
    bench.queue.add("a")
    await bench.drain()
    bench.clock.advance(2)
    await bench.drain()
    assert (bench.done, bench.results) == (["a", "a"], ["again", "ok"])


@pytest.mark.parametrize(("wish", "low", "high"), [(7.0, 7, 7), (None, 480, 720), (5000.0, 480, 720)])
async def test_when_a_key_is_looked_at_again(wish: float | None, low: float, high: float) -> None:
    """Its own wish, at the latest the spread resync."""
    bench = Bench(lambda _key: wish)
    bench.queue.add("a")
    await bench.drain()
    due = bench.queue.next_due
    assert due is not None
    assert low <= due <= high


async def test_a_settled_key_is_not_looked_at_again() -> None:
    bench = Bench(lambda _key: -1.0)
    bench.queue.add("a")
    await bench.drain()
    assert bench.queue.next_due is None


async def test_a_forgotten_key_is_dropped() -> None:
    bench = Bench()
    bench.queue.add("a")
    bench.queue.add("b", 5)
    bench.queue.forget("a")
    bench.queue.forget("b")
    bench.clock.advance(10)
    await bench.drain()
    assert bench.done == []


async def test_a_first_look_at_many_is_spread() -> None:
    bench = Bench()
    bench.queue.spread([str(number) for number in range(100)], over_seconds=10)
    await bench.drain()
    assert bench.done == []
    bench.clock.advance(5)
    await bench.drain()
    assert 30 < len(bench.done) < 70
    bench.clock.advance(5)
    await bench.drain()
    assert len(bench.done) == 100


async def test_depth_and_age_count_what_waits() -> None:
    bench = Bench()
    bench.queue.add("a")
    bench.queue.add("b", 60)
    bench.clock.advance(3)
    assert (bench.queue.depth, bench.queue.oldest_seconds, bench.queue.longest_work_seconds) == (1, 3.0, 0.0)
    bench.queue.take()
    bench.clock.advance(4)
    assert (bench.queue.depth, bench.queue.longest_work_seconds) == (0, 4.0)


async def test_workers_wake_for_what_is_added_and_run_side_by_side() -> None:
    started: asyncio.Queue[str] = asyncio.Queue()
    finish = asyncio.Event()

    async def work(key: str) -> float | None:
        started.put_nowait(key)
        await finish.wait()
        return -1.0

    rng = random.Random(1)  # noqa: S311 - spreads, in tests always alike
    queue: WorkQueue[str] = WorkQueue(work, clock=asyncio.get_running_loop().time, rng=rng, resync_seconds=600)
    running = asyncio.create_task(queue.run(2))
    queue.add("a")
    assert await started.get() == "a"
    queue.add("b")
    assert await started.get() == "b"
    finish.set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 20)), max_size=30))
def test_nothing_that_was_asked_for_is_lost(wishes: list[tuple[str, float]]) -> None:
    async def play() -> None:
        bench = Bench()
        for key, delay in wishes:
            bench.queue.add(key, delay)
        bench.clock.advance(21)
        await bench.drain()
        assert sorted(bench.done) == sorted({key for key, _ in wishes})

    asyncio.run(play())

from __future__ import annotations

import pytest

from finetune_api.models.status import StatusProgress
from finetune_operator.clocks import Clocks
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import ApiError, NotFoundError
from finetune_operator.cluster.observe import JobKey
from finetune_operator.plan.report import News
from finetune_operator.progress.bucket import TokenBucket
from finetune_operator.progress.writer import ProgressWriter
from tests.support.fake_api import Call, FakeApi, unreachable
from tests.support.operator_cluster import NAMESPACE, job_manifest

QUIET: News = frozenset({("attempt", 1, 1), ("activity", "Training")})
CHECKPOINT: News = QUIET | {("checkpoint", 1, 10, True)}


class World:
    """A writer over the fake API server."""

    def __init__(self, *, jobs: int = 1, rate: float = 20) -> None:
        self.api = FakeApi()
        self.keys = [JobKey(NAMESPACE, f"job-{number}") for number in range(jobs)]
        self.uids = {key: self.api.add("finetunejobs", job_manifest(key.name))["metadata"]["uid"] for key in self.keys}
        self.acted: list[tuple[JobKey, News]] = []
        clock = self.api.clock
        self.writer = ProgressWriter(
            Client(self.api),
            TokenBucket(rate, clock=clock.monotonic),
            Clocks(clock.now, clock.monotonic),
            min_seconds=5,
            on_urgent=lambda key, news: self.acted.append((key, news)),
        )

    async def post(self, step: int, *, job: int = 0, news: News = QUIET, known: News = QUIET) -> None:
        key = self.keys[job]
        await self.writer.take(key, self.uids[key], StatusProgress(run=1, attempt=1, step=step), news=news, known=known)

    async def flush(self) -> None:
        while await self.writer.flush_one() == 0.0:
            pass

    def step(self, job: int = 0) -> int | None:
        found = self.api.get("finetunejobs", self.keys[job].name)
        assert found is not None
        step = ((found.get("status") or {}).get("progress") or {}).get("step")
        return int(step) if step is not None else None

    @property
    def writes(self) -> int:
        return sum(call.is_write for call in self.api.calls)


async def test_numbers_wait_and_the_newest_counts() -> None:
    world = World()
    await world.post(1)
    await world.post(2)
    assert (world.step(), world.writer.pending) == (None, 1)
    await world.flush()
    assert (world.step(), world.writes, world.acted) == (2, 1, [])


async def test_a_job_is_written_at_most_every_five_seconds() -> None:
    world = World()
    for step in range(20):
        await world.post(step)
        await world.flush()
        world.api.clock.advance(1)
    assert world.writes == 4


async def test_what_is_urgent_is_stored_before_the_answer() -> None:
    """Design §4: stopped, finished, checkpoints and attempts are written through; the leader acts on them at once."""
    world = World()
    await world.post(10, news=CHECKPOINT)
    assert (world.step(), world.writes) == (10, 1)
    assert world.acted == [(world.keys[0], CHECKPOINT - QUIET)]
    await world.post(10, news=CHECKPOINT)
    assert world.writes == 1


async def test_what_the_status_holds_already_is_not_urgent() -> None:
    """Another replica stored it, or this one was restarted."""
    world = World()
    await world.post(10, news=CHECKPOINT, known=CHECKPOINT)
    assert world.writes == 0


async def test_urgent_posts_are_stored_also_when_the_bucket_is_empty() -> None:
    world = World(jobs=3, rate=1)
    for job in range(3):
        await world.post(1, job=job, news=CHECKPOINT)
    assert world.writes == 3
    await world.post(2, job=0, news=CHECKPOINT)
    assert await world.writer.flush_one() > 0  # type: ignore[operator]


async def test_all_jobs_together_stay_below_the_rate_and_none_is_forgotten() -> None:
    """Design §7: 20 writes a second; 300 jobs that post every 5 s are at most 15 s old (and a burst)."""
    world = World(jobs=300)
    oldest = 0.0
    for second in range(40):
        for number in range(300):
            if second % 5 == number % 5:
                await world.post(second, job=number)
        for _ in range(20):
            await world.flush()
            world.api.clock.advance(0.05)
        oldest = max(oldest, world.writer.oldest_seconds)
    assert world.writes <= 20 + 40 * 20 + 1
    assert oldest <= 16
    assert all(world.step(number) is not None for number in range(300))


async def test_an_urgent_post_that_cannot_be_stored_is_not_answered_with_200() -> None:
    world = World()

    def away(_call: Call, _moment: str) -> None:
        raise unreachable()

    world.api.fault = away
    with pytest.raises(ApiError):
        await world.post(10, news=CHECKPOINT)
    world.api.fault = None
    await world.post(10, news=CHECKPOINT)
    assert world.step() == 10


async def test_a_periodic_write_that_fails_is_made_up_by_the_next_post() -> None:
    world = World()

    def away(_call: Call, _moment: str) -> None:
        raise unreachable()

    await world.post(1)
    world.api.fault = away
    await world.flush()
    world.api.fault = None
    await world.post(2)
    await world.flush()
    assert world.step() == 2


async def test_a_job_made_anew_under_the_same_name_is_not_written_by_the_old_one_s_trainer() -> None:
    world = World()
    world.api.remove(("finetunejobs", NAMESPACE, "job-0"))
    world.api.add("finetunejobs", job_manifest("job-0"))
    with pytest.raises(NotFoundError):
        await world.post(10, news=CHECKPOINT)
    assert world.step() is None


async def test_a_job_made_anew_between_reading_and_writing_is_not_written() -> None:
    """Tried on Kubernetes 1.36: a status patch with another uid is accepted; only the version protects."""
    world = World()

    def replaced(call: Call, moment: str) -> None:
        if call.is_write and moment == "before":
            world.api.fault = None
            world.api.remove(("finetunejobs", NAMESPACE, "job-0"))
            world.api.add("finetunejobs", job_manifest("job-0"))

    world.api.fault = replaced
    with pytest.raises(NotFoundError):
        await world.post(10, news=CHECKPOINT)
    assert world.step() is None


async def test_a_write_of_the_reconciler_in_between_only_costs_a_second_try() -> None:
    world = World()

    def changed(call: Call, moment: str) -> None:
        if call.is_write and moment == "before":
            world.api.fault = None
            world.api.change("finetunejobs", NAMESPACE, "job-0", {"status": {"phase": "Training"}})

    world.api.fault = changed
    await world.post(10, news=CHECKPOINT)
    assert world.step() == 10


async def test_progress_is_written_by_its_own_field_manager() -> None:
    """Design §3: status.progress has one writer."""
    world = World()
    seen: list[str] = []
    request = world.api.request

    async def recording(method: str, path: str, **arguments: object) -> object:
        seen.append(str(arguments["query"]))
        return await request(method, path, **arguments)  # type: ignore[arg-type]

    world.api.request = recording  # type: ignore[method-assign, assignment]
    await world.post(10, news=CHECKPOINT)
    assert seen == ["{}", "{'fieldManager': 'finetune-progress'}"]
    (call,) = [call for call in world.api.calls if call.is_write]
    assert set(call.body) == {"metadata", "status"}
    assert list(call.body["status"]) == ["progress"]
    assert call.body["metadata"]["uid"] == world.uids[world.keys[0]]
    assert call.body["metadata"]["resourceVersion"]

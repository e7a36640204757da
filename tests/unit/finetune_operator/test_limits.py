"""Limits and usage: GPU time adds up over attempts, resizes and operators; a limit ends in a resumable pause."""

from __future__ import annotations

import pytest

from finetune_api.contract.failures import EXIT_PEER_LOST, FailureClass
from tests.support.operator_cluster import FakeCluster, failure


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


async def reached(cluster: FakeCluster, step: int) -> None:
    await cluster.until(lambda: cluster.status.usage.productive_seconds >= step, train=5)


async def test_a_limit_ends_in_a_pause_with_a_checkpoint(cluster: FakeCluster) -> None:
    """O-11, OP-12: no kill, nothing lost, nothing written into spec; the reason is said."""
    cluster.create({"limits": {"maxActiveSeconds": 60}})
    written = cluster.manifest["spec"]
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    status = cluster.status
    assert (status.reason, status.usage.lost_steps) == ("LimitReached", 0)
    assert status.pause is not None
    assert status.pause.saved
    assert status.hold is not None
    assert "spec.limits.maxActiveSeconds is 60" in status.hold.message
    assert cluster.condition("Ready") == ("True", "LimitReached")
    assert cluster.condition("Suspended") == ("True", "LimitReached")
    assert cluster.manifest["spec"] == written
    assert cluster.pods() == []
    assert "LimitReached" in cluster.story()


async def test_a_held_job_goes_on_by_the_request_resume_once_the_limit_is_raised(cluster: FakeCluster) -> None:
    """OP-12: neither a higher limit nor an apply resumes it; a resume without room is refused with what to do."""
    cluster.create({"limits": {"maxActiveSeconds": 60}})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.annotate(**{"finetune.dev/request": "resume/1"})
    await cluster.settle()
    assert cluster.phase == "Paused"
    assert "Raise it, then request resume" in cluster.event("RequestIgnored")
    cluster.edit({"limits": {"maxActiveSeconds": 100000}})
    await cluster.settle()
    assert (cluster.phase, cluster.status.reason) == ("Paused", "LimitReached")
    cluster.annotate(**{"finetune.dev/request": "resume/2"})
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert [a.reason for a in cluster.status.attempts] == ["Created", "Resumed"]
    assert cluster.status.hold is None


async def test_a_clock_put_forward_eats_nothing_of_the_limit(cluster: FakeCluster) -> None:
    """O-11: it may hold the job early, with a checkpoint; the time is not used, so that resume goes on without a higher limit."""
    cluster.create({"limits": {"maxActiveSeconds": 1000}})
    await reached(cluster, 20)
    cluster.clock.advance(86400)
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    assert cluster.status.reason == "LimitReached"
    assert cluster.status.usage.active_seconds == cluster.used_seconds["productive"] < 100
    cluster.annotate(**{"finetune.dev/request": "resume/1"})
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)


async def test_limits_count_over_pauses_and_paused_time_is_free(cluster: FakeCluster) -> None:
    """AC-57: what counts is time at work, however often it is paused in between."""
    cluster.create({"limits": {"maxActiveSeconds": 100}})
    await reached(cluster, 20)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    used = cluster.status.usage.active_seconds
    cluster.clock.advance(100_000)
    await cluster.settle(advance=True, rounds=3)
    assert cluster.status.usage.active_seconds == used
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    assert cluster.status.reason == "LimitReached"
    assert used < cluster.status.usage.active_seconds <= 110


async def test_a_limit_holds_although_no_report_arrives(cluster: FakeCluster) -> None:
    """The time since the last report counts until the next one says better."""
    cluster.create({"limits": {"maxActiveSeconds": 300}})
    await reached(cluster, 10)
    cluster.posts_arrive = False
    for _ in range(20):
        cluster.clock.advance(20)
        await cluster.reconcile()
        cluster.step()
    assert cluster.status.hold is not None
    assert cluster.phase == "Pausing"


async def test_a_used_up_limit_keeps_the_next_run_from_starting(cluster: FakeCluster) -> None:
    cluster.create({"limits": {"maxGpuHours": 1000.0}})
    await reached(cluster, 40)
    cluster.edit({"suspend": True, "limits": {"maxGpuHours": 0.01}})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.edit({"suspend": False})
    await cluster.settle()
    assert (cluster.phase, cluster.status.reason, cluster.status.run) == ("Paused", "LimitReached", 1)


async def test_usage_is_counted_once_whatever_operator_sees_it(cluster: FakeCluster) -> None:
    """Correct after restarts: the clocks are the trainer's, each second counts once."""
    cluster.create()
    await reached(cluster, 10)
    for _ in range(5):
        cluster.new_operator()
        await cluster.train(5)
        await cluster.reconcile()
        await cluster.reconcile()
    progress = cluster.status.progress
    assert progress is not None
    assert cluster.status.usage.productive_seconds == progress.step
    assert cluster.status.usage.active_seconds == progress.step


async def test_usage_multiplies_by_what_each_run_holds(cluster: FakeCluster) -> None:
    """A resize changes the price of a second from there on, not of what was used."""
    cluster.create({"replicas": 2, "training": {"batchSize": 2, "gradAccumSteps": 4}})
    await reached(cluster, 40)
    cluster.edit({"replicas": 0})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    before = cluster.status.usage
    assert before.productive_seconds == 2 * before.active_seconds
    cluster.edit({"replicas": 1})
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    after = cluster.status.usage
    assert after.productive_seconds - before.productive_seconds == pytest.approx(after.active_seconds - before.active_seconds)


async def test_what_a_failed_run_used_was_used(cluster: FakeCluster) -> None:
    """Steps after the last checkpoint are lost, not the GPU time they took."""
    cluster.create()
    await reached(cluster, 35)
    used = cluster.status.usage.productive_seconds
    cluster.end_pod("demo-r1-0", EXIT_PEER_LOST, failure(FailureClass.PEER_LOST, EXIT_PEER_LOST))
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert cluster.status.usage.productive_seconds > used
    assert cluster.status.usage.productive_seconds == cluster.used_seconds["productive"]

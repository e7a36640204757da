"""No second of a group's life is lost or counted twice, whatever ends it."""

from __future__ import annotations

import signal
from itertools import pairwise

from finetune_api.contract.store import UsageSeconds
from finetune_trainer.store.heartbeat import Heartbeat, newest_heartbeat
from finetune_trainer.store.ledger import Ledger, StoredCheckpoint
from finetune_trainer.supervisor.past import usage_so_far
from finetune_trainer.supervisor.usage import UsageLedger
from tests.support.ledgers import make_manifest
from tests.support.pods import Cluster
from tests.support.progress_server import ProgressServer
from tests.support.waiting import eventually

SLOW = {"FAKE_STEPS": "400", "FAKE_STEP_SECONDS": "0.05"}


def total(usage: UsageSeconds) -> float:
    """Seconds of all uses."""
    return float(sum(usage.model_dump().values()))


def productive(cluster: Cluster) -> float:
    """Productive seconds that the newest heartbeat of the first attempt tells of."""
    beat = newest_heartbeat(cluster.store, [1])
    return beat.usage.productive if beat is not None and beat.usage is not None else 0.0


def test_every_moment_belongs_to_one_use() -> None:
    """Before rank 0 books: starting. While it books: its sums. After it: what it did last, then keeping what was trained."""
    now = [100.0]
    ledger = UsageLedger(90.0, lambda: now[0])
    assert ledger.total() == UsageSeconds(starting=10)
    ledger.carry(UsageSeconds(starting=1, productive=2))
    assert ledger.total() == UsageSeconds(starting=11, productive=2)
    ledger.settle(UsageSeconds(starting=12, productive=4), until=103.0)
    now[0] = 104.0
    assert ledger.total() == UsageSeconds(starting=12, productive=4)
    ledger.ranks_ended("Training")
    now[0] = 110.0
    assert ledger.total() == UsageSeconds(starting=12, productive=5, checkpointing=6)
    assert total(ledger.total()) == 3 + 110 - 90


def test_ranks_that_never_trained_were_starting() -> None:
    now = [5.0]
    ledger = UsageLedger(0.0, lambda: now[0])
    ledger.ranks_ended("Loading")
    assert ledger.total() == UsageSeconds(starting=5)


def test_a_late_word_of_rank_0_takes_nothing_back() -> None:
    now = [10.0]
    ledger = UsageLedger(0.0, lambda: now[0])
    ledger.settle(UsageSeconds(starting=4, productive=6), until=10.0)
    ledger.settle(UsageSeconds(starting=4, productive=5), until=9.0)
    assert ledger.total() == UsageSeconds(starting=4, productive=6)


def test_the_highest_of_each_use_counts() -> None:
    """A manifest may be newer than the last heartbeat, and the other way round."""
    manifest = make_manifest(1, 5).model_copy(update={"usage": UsageSeconds(productive=5, starting=1)})
    ledger = Ledger(checkpoints=[StoredCheckpoint(1, 5, manifest, {})])
    beat = Heartbeat(attempt=1, step=4, usage=UsageSeconds(productive=4, starting=2))
    assert usage_so_far(ledger, beat) == UsageSeconds(productive=5, starting=2)
    assert usage_so_far(Ledger(), None) == UsageSeconds()


def test_usage_is_live_and_goes_on_over_attempts(cluster: Cluster, operator: ProgressServer) -> None:
    """Seconds of an attempt killed between two checkpoints are not forgotten, and what it lost counts as replayed (issue 4, usage)."""
    (pod,) = cluster.start_run({"checkpoint": {"steps": 1000}}, **SLOW)
    operator.wait_for_step(5)
    eventually(lambda: productive(cluster) > 0, what="productive time in a heartbeat")
    pod.kill()
    last = newest_heartbeat(cluster.store, [1])
    assert last is not None
    assert last.usage is not None
    assert operator.last["usage"]["productive"] > 0
    (again,) = cluster.start_run({"checkpoint": {"steps": 1000}}, FAKE_STEPS=str(last.step + 2))
    assert again.wait() == 0, again.output()
    usage = again.message.usage
    assert usage is not None
    assert usage.starting > last.usage.starting > 0
    assert usage.productive >= last.usage.productive
    assert usage.replayed > 0
    posts = [post["finetune"]["usage"] for post in operator.posts if post["finetune"]["run"] == 2]
    assert all(old[use] <= new[use] for old, new in pairwise(posts) for use in old)


def test_a_hold_is_counted_and_a_pause_is_not(cluster: Cluster, operator: ProgressServer) -> None:
    """O-11: the meter runs while the pod holds its checkpoint and stops with it."""
    (pod,) = cluster.start_run(**SLOW)
    operator.wait_for_step(3)
    operator.command("pause", "pause-1")
    operator.wait_for("stopped")
    before = operator.last["usage"]["checkpointing"]
    eventually(lambda: operator.last["usage"]["checkpointing"] > before, what="the hold is counted")
    pod.signal()
    assert pod.wait() == 75
    paused = pod.message.usage
    assert paused is not None
    operator.commands = []
    (again,) = cluster.start_run(FAKE_STEPS=str((pod.message.step or 0) + 2))
    assert again.wait() == 0, again.output()
    resumed = again.message.usage
    assert resumed is not None
    posts = [post["finetune"]["usage"] for post in operator.posts if post["finetune"]["run"] == 2 and post["finetune"]["attempt"] == 2]
    assert posts[0]["productive"] >= paused.productive
    assert posts[0]["replayed"] == paused.replayed == 0
    assert resumed.productive > paused.productive


def test_a_killed_worker_ends_the_ledger_of_its_pod(cluster: Cluster) -> None:
    (pod,) = cluster.start_run(FAKE_STEPS="400", FAKE_EXIT=f"0:4:-{signal.SIGKILL.value}")
    assert pod.wait() == 1, pod.output()
    assert pod.message.usage is not None
    assert pod.message.usage.productive > 0

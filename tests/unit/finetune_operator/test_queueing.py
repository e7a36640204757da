"""Jobs in a queue: the real reconciler beside a stand-in that does what Kueue does (L-06, L-09)."""

from __future__ import annotations

import pytest

from tests.support.fake_kueue import FLAVOUR, QueuedCluster
from tests.support.operator_cluster import FakeCluster

QUEUED = {"resources": {"device": "cpu", "queue": "team-a", "queuePriorityClass": "production"}}


@pytest.fixture
def cluster() -> QueuedCluster:
    return QueuedCluster()


async def train_to(cluster: QueuedCluster, step: int) -> None:
    await cluster.until(lambda: cluster.status.progress is not None and cluster.status.progress.step >= step, train=5)


def job_writes(cluster: QueuedCluster) -> set[str]:
    """How the operator has written Jobs."""
    return {call.method for call in cluster.api.calls if call.is_write and "/jobs" in call.path}


async def test_a_run_waits_for_its_quota(cluster: QueuedCluster) -> None:
    """Labels on the Job alone, suspended from the start; Queued with Kueue's own words; no pod before it is admitted."""
    cluster.rival_arrives()
    cluster.create(QUEUED)
    await cluster.until(lambda: cluster.status.reason == "AwaitingQuota")
    (job,) = cluster.jobs()
    assert {k: v for k, v in job["metadata"]["labels"].items() if "kueue" in k} == {
        "kueue.x-k8s.io/queue-name": "team-a",
        "kueue.x-k8s.io/priority-class": "production",
    }
    assert not any("kueue" in key for key in job["spec"]["template"]["metadata"]["labels"])
    assert (cluster.phase, cluster.pods()) == ("Queued", [])
    assert cluster.condition("Admitted") == ("False", "AwaitingQuota")
    assert cluster.condition("Ready") == ("True", "AwaitingQuota")
    ready = next(c for c in cluster.status.conditions if c.type == "Ready")
    assert "Queue team-a has no quota for the run yet: insufficient unused quota for nvidia.com/gpu" in ready.message
    cluster.rival_leaves()
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.condition("Admitted") == ("True", "PodsScheduled")
    assert cluster.pods()[0]["spec"]["nodeSelector"] == FLAVOUR
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert cluster.status.attempt_count == 1
    assert job_writes(cluster) <= {"POST", "DELETE"}


async def test_without_kueue_the_status_says_so() -> None:
    """A queue that nobody serves: the Job stays suspended, and the message names what is missing."""
    cluster = FakeCluster()
    cluster.create(QUEUED)
    await cluster.until(lambda: cluster.phase == "Queued")
    assert cluster.condition("Admitted") == ("False", "AwaitingQueue")
    assert not cluster.pods()


async def test_a_preempted_group_goes_on_inside_its_run(cluster: QueuedCluster) -> None:
    """The pods save on SIGTERM; the same Job starts again when it is admitted: an attempt more, no restart counted, nothing lost."""
    cluster.create(QUEUED)
    await train_to(cluster, 33)
    cluster.rival_arrives()
    await cluster.until(lambda: cluster.phase == "Queued")
    assert cluster.condition("Admitted") == ("False", "Preempted")
    assert "Preempted" in cluster.story()
    (job,) = cluster.jobs()
    assert (job["spec"]["suspend"], cluster.pods(), cluster.rival_runs) == (True, [], True)
    saved = cluster.store.newest
    assert saved is not None
    cluster.rival_leaves()
    await cluster.until(lambda: len(cluster.status.attempts) == 2, train=1)
    first, second = cluster.status.attempts
    assert (first.run, first.outcome, second.run, second.reason, second.from_step) == (1, "Preempted", 1, "Preempted", saved.step)
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert (cluster.status.run, cluster.status.retry.used) == (1, 0)
    assert job_writes(cluster) <= {"POST", "DELETE"}


async def test_quota_is_held_until_the_pods_are_gone(cluster: QueuedCluster) -> None:
    """Whoever preempts starts when the last pod has ended, and the message says that they are ending."""
    cluster.create(QUEUED)
    await train_to(cluster, 20)
    cluster.pods_linger = True
    cluster.rival_arrives()
    await cluster.reconcile()
    assert not cluster.rival_runs
    assert cluster.phase == "Queued"
    assert "1 pods save a checkpoint and end" in next(c for c in cluster.status.conditions if c.type == "Ready").message
    cluster.pods_linger = False
    cluster.step()
    assert cluster.rival_runs


async def test_pause_of_a_waiting_run_is_immediate(cluster: QueuedCluster) -> None:
    """Nothing has started, so there is nothing to ask: the Job goes, and with it the place in the queue."""
    cluster.rival_arrives()
    cluster.create(QUEUED)
    await cluster.until(lambda: cluster.phase == "Queued")
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused")
    assert (cluster.jobs(), cluster.api.find("workloads")) == ([], [])
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Queued")
    cluster.rival_leaves()
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert cluster.status.run == 2


@pytest.mark.parametrize(("edit", "phase"), [({"suspend": True}, "Paused"), ({"desiredState": "Stopped"}, "Stopped")])
async def test_pause_and_stop_under_kueue(cluster: QueuedCluster, edit: dict[str, object], phase: str) -> None:
    """Acknowledged as ever, by deleting the Job: its suspend is Kueue's, which would take it back."""
    cluster.create(QUEUED)
    await train_to(cluster, 30)
    cluster.edit(edit)
    await cluster.until(lambda: cluster.phase == phase, train=1)
    pause = cluster.status.pause
    assert pause is not None
    assert (pause.saved, cluster.jobs(), cluster.api.find("workloads")) == (True, [], [])
    cluster.rival_arrives()
    assert cluster.rival_runs
    cluster.rival_leaves()
    cluster.edit({"suspend": False, "desiredState": "Running"})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.status.attempts[-1].from_step == pause.step
    assert job_writes(cluster) <= {"POST", "DELETE"}


async def test_a_pause_while_preempted_finds_what_was_saved(cluster: QueuedCluster) -> None:
    """The pods' last words may be lost with them: the store is asked, so that the status names the step that is really kept."""
    cluster.create(QUEUED)
    await train_to(cluster, 33)
    cluster.posts_arrive = False
    cluster.rival_arrives()
    await cluster.until(lambda: cluster.phase == "Queued")
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused")
    saved, latest = cluster.store.newest, cluster.status.checkpoints.latest
    assert saved is not None
    assert latest is not None
    assert (latest.attempt, latest.step) == (saved.attempt, saved.step)


async def test_what_others_suspend_kueue_starts_again(cluster: QueuedCluster) -> None:
    """Nobody asked for a pause: the group goes on from its checkpoint."""
    cluster.create(QUEUED)
    await train_to(cluster, 20)
    cluster.suspend_by_hand("demo-r1")
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert cluster.status.run == 1


async def test_a_job_somebody_suspends_without_a_queue() -> None:
    """The message says what is the matter; nothing is restarted behind anybody's back."""
    cluster = QueuedCluster()
    cluster.create()
    await train_to(cluster, 20)
    cluster.suspend_by_hand("demo-r1")
    await cluster.until(lambda: cluster.phase == "Queued")
    assert cluster.condition("Admitted") == ("False", "JobSuspended")


async def test_short_pods_stay_out_of_the_queue() -> None:
    """A preflight needs no GPU: it must not wait for one."""
    cluster = QueuedCluster()
    cluster.create({"resources": {"device": "gpu", "queue": "team-a"}})
    await cluster.until(lambda: bool(cluster.jobs("preflight")) or cluster.phase == "Training", train=1)
    assert all("kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"] for job in cluster.jobs("preflight"))
    await cluster.until(lambda: cluster.phase == "Training", train=1)

"""Pause, stop, cancel, resume, resize: what the user may do to a job, over the fake cluster."""

from __future__ import annotations

import pytest

from finetune_api.contract.failures import EXIT_STOPPED
from finetune_api.contract.progress import TrainerPhase
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.status import PauseStatus
from tests.support.operator_cluster import NAMESPACE, FakeCluster


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


async def training(cluster: FakeCluster, step: int = 30, **spec: object) -> None:
    """A job that trains and has reached a step."""
    cluster.create(dict(spec))
    await cluster.until(
        lambda: cluster.phase == "Training" and cluster.status.progress is not None and cluster.status.progress.step >= step, train=5
    )


def pause_of(cluster: FakeCluster) -> PauseStatus:
    assert cluster.status.pause is not None
    return cluster.status.pause


async def test_pause_while_starting_gives_up_the_pods_at_once(cluster: FakeCluster) -> None:
    """OP-09: no container runs, nothing to save, nobody to ask."""
    cluster.cordoned = True
    cluster.create()
    await cluster.settle()
    assert cluster.phase == "Queued"
    started = cluster.clock.now()
    cluster.edit({"suspend": True})
    await cluster.settle()
    assert (cluster.phase, cluster.pods(), cluster.jobs()) == ("Paused", [], [])
    assert cluster.clock.now() == started
    assert (pause_of(cluster).saved, pause_of(cluster).step) == (False, 0)


@pytest.mark.parametrize(("activity", "phase"), [("Starting", "Paused"), ("Preparing", "Paused"), ("Loading", "Pausing")])
async def test_pause_before_the_model_is_loaded_asks_nobody(cluster: FakeCluster, activity: TrainerPhase, phase: str) -> None:
    """OP-09: the pods run, yet there is nothing to save: they go at once. From the loading on the trainer is asked."""
    cluster.activity = activity
    cluster.create()
    await cluster.until(lambda: bool(cluster.current()))
    await cluster.train(0)
    await cluster.settle()
    assert [pod["status"]["phase"] for pod in cluster.pods()] == ["Running"]
    started = cluster.clock.now()
    cluster.edit({"suspend": True})
    await cluster.settle()
    assert cluster.clock.now() == started
    left = 0 if phase == "Paused" else 1
    assert (cluster.phase, len(cluster.pods()), len(cluster.jobs())) == (phase, left, left)
    assert (pause_of(cluster).saved, pause_of(cluster).step) == ((False, 0) if phase == "Paused" else (None, None))


async def test_the_answer_is_stored_before_the_job_is_deleted(cluster: FakeCluster) -> None:
    """Design §4: release only when the answer, and the end of the attempt, are in status."""
    await training(cluster)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    history = cluster.api.history
    deleted = next(
        at for at, (plural, _, manifest) in enumerate(history) if plural == "jobs" and "deletionTimestamp" in manifest["metadata"]
    )
    before = next(manifest["status"] for plural, _, manifest in reversed(history[:deleted]) if plural == "finetunejobs")
    assert '"stopped"' in before["progress"]["report"]
    assert before["pause"]["saved"] is True
    assert before["attempts"][-1]["outcome"] == "Paused"


async def test_the_job_is_deleted_in_the_foreground_with_its_uid(cluster: FakeCluster) -> None:
    """Design §4: nothing but the Job that was seen is deleted, and its name is free only when its pods are gone."""
    await training(cluster)
    uid = cluster.jobs()[0]["metadata"]["uid"]
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    deletions = [call.body for call in cluster.api.calls if call.method == "DELETE" and call.path.endswith("/jobs/demo-r1")]
    assert [(body["preconditions"], body["propagationPolicy"]) for body in deletions] == [({"uid": uid}, "Foreground")]


async def test_wait_keeps_the_pods_however_long_it_takes(cluster: FakeCluster) -> None:
    """pausePolicy.ifUnsaved Wait: no answer, no release; said after the timeout; the pause ends when the answer comes."""
    await training(cluster)
    cluster.posts_arrive = False
    cluster.edit({"suspend": True})
    await cluster.settle()
    cluster.clock.advance(5000)
    await cluster.settle()
    assert (cluster.phase, cluster.status.reason, len(cluster.pods())) == ("Pausing", "CheckpointOverdue", 1)
    for _ in range(3):
        await cluster.reconcile()
    posts = [call.body["reason"] for call in cluster.api.calls if call.path.endswith("/events") and call.is_write]
    assert posts.count("CheckpointOverdue") == 1, "said once, not at every look"
    cluster.posts_arrive = True
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    assert pause_of(cluster).saved


async def test_discard_gives_up_the_pods_after_the_timeout_and_looks_into_the_store(cluster: FakeCluster) -> None:
    """pausePolicy.ifUnsaved Discard: SIGTERM still saves; inspect tells what was kept."""
    await training(cluster, pausePolicy={"timeoutSeconds": 60, "ifUnsaved": "Discard", "graceSeconds": 120})
    cluster.posts_arrive = False
    cluster.edit({"suspend": True})
    await cluster.settle()
    assert cluster.phase == "Pausing"
    cluster.clock.advance(61)
    await cluster.settle(advance=True, rounds=20)
    assert cluster.phase == "Paused"
    latest = cluster.status.checkpoints.latest
    assert latest is not None
    assert (pause_of(cluster).saved, pause_of(cluster).step) == (True, latest.step)
    assert latest.trigger == "signal"
    assert "PauseTimedOut" in cluster.story()
    assert cluster.jobs("inspect") == []


async def test_a_store_that_cannot_be_looked_at_does_not_keep_a_pause_from_ending(cluster: FakeCluster) -> None:
    await training(cluster, step=25, pausePolicy={"timeoutSeconds": 60, "ifUnsaved": "Discard", "graceSeconds": 120})
    cluster.verb_exit["inspect"] = TerminationMessage(contract_version=1, run=1, pod=0, exit_code=77)
    cluster.posts_arrive = False
    cluster.edit({"suspend": True})
    await cluster.settle()
    cluster.clock.advance(61)
    await cluster.settle(advance=True, rounds=20)
    assert (cluster.phase, pause_of(cluster).saved, pause_of(cluster).step) == ("Paused", False, 20)
    assert pause_of(cluster).lost_steps > 0
    assert cluster.condition("CheckpointReady") == ("False", "CheckpointTimedOut")
    assert "PauseUnconfirmed" in cluster.story()


async def test_a_pause_taken_back_is_carried_through_and_the_job_goes_on(cluster: FakeCluster) -> None:
    """The ranks may have agreed already: what was asked is finished, then the next run starts by itself."""
    await training(cluster)
    cluster.edit({"suspend": True})
    await cluster.settle()
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.status.run == 2 and cluster.phase == "Training", train=1)
    assert [a.reason for a in cluster.status.attempts] == ["Created", "Resumed"]


async def test_exit_without_an_answer_while_pausing(cluster: FakeCluster) -> None:
    """The hold ran out (exit 75) although the answer never arrived: its last words count."""
    await training(cluster)
    cluster.posts_arrive = False
    cluster.edit({"suspend": True})
    await cluster.settle()
    newest = cluster.store.newest
    assert newest is not None
    words = TerminationMessage(contract_version=1, run=1, attempt=1, pod=0, exit_code=EXIT_STOPPED, step=newest.step, checkpoint=newest)
    cluster.end_pod("demo-r1-0", EXIT_STOPPED, words)
    await cluster.settle()
    assert (cluster.phase, pause_of(cluster).saved, pause_of(cluster).step) == ("Paused", True, newest.step)


async def test_pods_that_ended_as_a_pause_was_asked_for_are_shown_as_ending(cluster: FakeCluster) -> None:
    """The operator dies before it has noted that it removed their Job: the phase says already what is under way."""
    await training(cluster)
    cluster.edit({"suspend": True})
    cluster.end_pod("demo-r1-0", EXIT_STOPPED)
    cluster.step()
    await cluster.reconcile()
    assert cluster.status.attempts[-1].outcome == "Paused"
    assert (cluster.phase, cluster.status.reason) == ("Pausing", "Releasing")
    await cluster.settle()
    assert cluster.phase == "Paused"


async def test_stopped_and_running_again(cluster: FakeCluster) -> None:
    """Q-06, P-07: Stopped is a pause by another name; desiredState Running leaves it."""
    await training(cluster)
    cluster.edit({"desiredState": "Stopped"})
    await cluster.settle()
    assert cluster.phase == "Stopping"
    assert pause_of(cluster).action == "stop"
    await cluster.until(lambda: cluster.phase == "Stopped", train=1)
    assert not cluster.pods()
    cluster.edit({"desiredState": "Running"})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.status.attempts[-1].from_step == pause_of(cluster).step


async def test_cancelled_is_final(cluster: FakeCluster) -> None:
    """Q-07, P-10: the checkpoint is kept, everything else goes, and nothing starts it again."""
    await training(cluster)
    cluster.edit({"desiredState": "Cancelled"})
    await cluster.until(lambda: cluster.phase == "Cancelled", train=1)
    await cluster.settle(advance=True, rounds=40)
    assert {key[0] for key in cluster.api.objects} == {"finetunejobs", "events"}
    cluster.edit({"desiredState": "Running"})
    cluster.annotate(**{"finetune.dev/request": "retry/1"})
    await cluster.settle()
    assert (cluster.phase, cluster.jobs()) == ("Cancelled", [])
    assert cluster.status.observed_generation == cluster.manifest["metadata"]["generation"]


async def test_cancel_before_the_first_run(cluster: FakeCluster) -> None:
    """P-10: nothing ever starts."""
    cluster.create({"desiredState": "Cancelled"})
    await cluster.settle(advance=True, rounds=5)
    assert (cluster.phase, cluster.store.attempts) == ("Cancelled", 0)


@pytest.mark.parametrize(
    ("spec", "phase"),
    [
        ({"desiredState": "Cancelled", "suspend": True, "replicas": 0}, "Cancelled"),
        ({"desiredState": "Stopped", "suspend": True, "replicas": 0}, "Stopped"),
        ({"suspend": True, "replicas": 2}, "Paused"),
        ({"suspend": False, "replicas": 0}, "Paused"),
    ],
)
async def test_order_of_the_levers(cluster: FakeCluster, spec: dict[str, object], phase: str) -> None:
    """Design §3: Cancelled > Stopped > suspend > replicas 0 > Running."""
    cluster.create(spec)
    await cluster.settle()
    assert (cluster.phase, cluster.jobs()) == (phase, [])


async def test_a_resize_while_paused_keeps_the_global_batch(cluster: FakeCluster) -> None:
    """OP-10: batch x accumulation x ranks stays; the derived value is said."""
    await training(cluster, replicas=2, training={"batchSize": 2, "gradAccumSteps": 4})
    cluster.edit({"replicas": 0})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.edit({"replicas": 1})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    resolved = cluster.status.resolved["training.gradAccumSteps"]
    assert (resolved.value, resolved.source) == ("8", "derived")
    assert cluster.run_config(2).topology.world_size == 1
    assert cluster.run_config(2).spec.training.grad_accum_steps == 8
    cluster.edit({"replicas": 0})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.edit({"replicas": 2})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.run_config(3).spec.training.grad_accum_steps == 4
    assert "training.gradAccumSteps" not in cluster.status.resolved


async def test_a_resize_that_cannot_keep_the_batch_names_those_that_can(cluster: FakeCluster) -> None:
    """OP-10: refused with the nearest valid values."""
    await training(cluster, replicas=2, training={"batchSize": 2, "gradAccumSteps": 4})
    cluster.edit({"replicas": 0})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.edit({"replicas": 3})
    await cluster.settle()
    assert (cluster.phase, cluster.status.reason, cluster.jobs()) == ("Pending", "EditRefused", [])
    valid = next(c for c in cluster.status.conditions if c.type == "Valid")
    assert "replicas that keep it with batchSize 2: 1, 2, 4" in valid.message
    cluster.edit({"replicas": 4})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.run_config(2).spec.training.grad_accum_steps == 2


async def test_scale_works_through_status(cluster: FakeCluster) -> None:
    """Q-10: /scale reads replicas and selector from status; the old size is remembered."""
    await training(cluster, replicas=2)
    status = cluster.status
    assert (status.replicas, status.last_replicas) == (2, 2)
    assert status.selector == "finetune.dev/job=demo,finetune.dev/component=trainer"
    cluster.edit({"replicas": 0})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    assert (cluster.status.replicas, cluster.status.last_replicas) == (0, 2)


async def test_nothing_restarts_a_paused_job(cluster: FakeCluster) -> None:
    """Design §3: deleting what is left, or a new operator, restarts nothing."""
    await training(cluster)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    for manifest in cluster.api.find("configmaps"):
        cluster.api.delete(("configmaps", NAMESPACE, manifest["metadata"]["name"]))
    cluster.new_operator()
    await cluster.settle()
    assert (cluster.phase, cluster.pods(), cluster.status.run) == ("Paused", [], 1)

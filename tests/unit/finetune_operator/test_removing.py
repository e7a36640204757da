"""Deleting jobs, with and without their objects in the store; requests by annotation; what is cleared away after success."""

from __future__ import annotations

import pytest

from finetune_api.constants import FINALIZER
from finetune_api.contract.failures import EXIT_USER_ERROR, FailureClass
from tests.support.operator_cluster import NAMESPACE, FakeCluster, failure

JOB = ("finetunejobs", NAMESPACE, "demo")


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def gone(cluster: FakeCluster) -> bool:
    return {key[0] for key in cluster.api.objects} <= {"events"}


async def test_without_retain_delete_there_is_no_finalizer(cluster: FakeCluster) -> None:
    """Design §4: the garbage collector does everything, operator up or down."""
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    assert "finalizers" not in cluster.manifest["metadata"]
    cluster.api.delete(JOB)
    cluster.step()
    assert gone(cluster)
    await cluster.reconcile()
    assert cluster.wake == -1.0


async def test_retain_delete_empties_the_store_first(cluster: FakeCluster) -> None:
    """Design §4: pods end, cleanup runs with the job's credentials, then the job goes; nothing is left."""
    cluster.create({"output": {"retain": "Delete"}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    assert cluster.manifest["metadata"]["finalizers"] == [FINALIZER]
    cluster.api.delete(JOB)
    await cluster.settle_until_gone()
    assert gone(cluster)
    assert "StoreCleaned" in cluster.story()
    made = [m["metadata"]["name"] for plural, kind, m in cluster.api.history if plural == "jobs" and kind == "ADDED"]
    assert made == ["demo-r1", "demo-cleanup-1"]


async def test_a_cleanup_that_fails_names_what_stays(cluster: FakeCluster) -> None:
    """A missing Secret never keeps a job from going."""
    cluster.verb_exit["cleanup"] = failure(FailureClass.STORAGE_AUTH, EXIT_USER_ERROR, message="Secret finetune-storage is missing")
    cluster.create({"output": {"retain": "Delete"}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    uri = cluster.status.output_uri
    cluster.api.delete(JOB)
    await cluster.settle_until_gone()
    assert gone(cluster)
    message = cluster.event("StoreNotCleaned")
    assert uri is not None
    assert uri in message
    assert "Secret finetune-storage is missing" in message


async def test_a_terminating_namespace_is_not_held_up(cluster: FakeCluster) -> None:
    """Trial 6: nothing can be created there, so nothing is waited for."""
    cluster.create({"output": {"retain": "Delete"}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.api.terminating_namespaces.add(NAMESPACE)
    for key in [key for key in cluster.api.objects if key[0] != "events"]:
        cluster.api.delete(key)
    await cluster.settle_until_gone()
    assert gone(cluster)


async def test_the_time_for_cleaning_is_bounded(cluster: FakeCluster) -> None:
    """output.cleanupTimeoutSeconds: even when the pods never end."""
    cluster.create({"output": {"retain": "Delete", "cleanupTimeoutSeconds": 60}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.dead_nodes.add("node-1")
    cluster.api.delete(JOB)
    await cluster.settle()
    assert cluster.api.get("finetunejobs", "demo") is not None
    cluster.clock.advance(61)
    await cluster.settle_until_gone()
    assert "StoreNotCleaned" in cluster.story()
    assert cluster.api.get("finetunejobs", "demo") is None


async def test_a_job_that_never_ran_goes_at_once(cluster: FakeCluster) -> None:
    cluster.create({"output": {"retain": "Delete"}})
    await cluster.reconcile()
    assert cluster.manifest["metadata"]["finalizers"] == [FINALIZER]
    cluster.api.delete(JOB)
    await cluster.settle_until_gone()
    assert gone(cluster)
    assert cluster.jobs("cleanup") == []


async def test_a_new_job_in_a_terminating_namespace_only_says_so(cluster: FakeCluster) -> None:
    cluster.api.terminating_namespaces.add(NAMESPACE)
    cluster.create()
    await cluster.reconcile()
    assert (cluster.phase, cluster.status.reason, cluster.status.run) == ("Pending", "NamespaceTerminating", 0)


async def test_a_succeeded_job_keeps_its_pods_for_a_while_and_then_nothing(cluster: FakeCluster) -> None:
    """Children carry no TTL: they go after the terminal status is stored."""
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Succeeded", train=20)
    await cluster.settle()
    assert len(cluster.pods()) == 1
    assert "ttlSecondsAfterFinished" not in cluster.jobs()[0]["spec"]
    cluster.clock.advance(cluster.settings.finished_retention_seconds + 1)
    await cluster.settle(advance=True, rounds=10)
    assert {key[0] for key in cluster.api.objects} == {"finetunejobs", "events"}
    assert cluster.condition("Reconciling") == ("False", "Done")
    await cluster.reconcile()
    assert cluster.wake == -1.0
    calls = len(cluster.api.calls)
    await cluster.reconcile()
    assert len(cluster.api.calls) == calls + 1


async def test_a_checkpoint_request_is_handled_when_the_trainer_says_so(cluster: FakeCluster) -> None:
    """D: checkpoint now; each token acts once."""
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.annotate(**{"finetune.dev/request": "checkpoint/1"})
    await cluster.settle()
    assert cluster.status.last_handled_request is None
    await cluster.until(lambda: cluster.status.last_handled_request == "checkpoint/1", train=1)
    assert cluster.store.newest is not None
    assert cluster.story().count("CheckpointRequested") == 1


@pytest.mark.parametrize("request_text", ["resume/1", "retry/1", "reboot/1"])
async def test_requests_that_do_not_fit_are_answered_once(cluster: FakeCluster, request_text: str) -> None:
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.annotate(**{"finetune.dev/request": request_text})
    await cluster.settle()
    assert cluster.status.last_handled_request == request_text
    assert cluster.story().count("RequestIgnored") == 1
    assert cluster.phase == "Training"

"""Whole lives of a job: the real reconciler over the fake API server, with a simulated Job controller, kubelet and trainer."""

from __future__ import annotations

import pytest

from tests.support.operator_cluster import SETTINGS, FakeCluster


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


async def test_a_job_runs_to_its_end(cluster: FakeCluster) -> None:
    """P-01, P-02, P-06: Starting, Training, Succeeded; one Job, the final address in status, the story in events."""
    cluster.create()
    await cluster.settle()
    assert (cluster.phase, cluster.status.run) == ("Starting", 1)
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.condition("Ready") == ("True", "Training")
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    status = cluster.status
    assert status.artifacts.final_uri == f"{status.output_uri}/final"
    assert [(a.run, a.attempt, a.reason, a.outcome, a.to_step) for a in status.attempts] == [(1, 1, "Created", "Succeeded", 100)]
    assert cluster.condition("Succeeded") == ("True", "Finished")
    assert status.replicas == 0
    assert cluster.story()[:2] == ["Validated", "RunCreated"]
    assert cluster.story()[-1] == "Succeeded"


@pytest.mark.parametrize("exports", [False, True])
async def test_a_training_that_ends_early_says_so(cluster: FakeCluster, exports: bool) -> None:
    """S-10: a normal completion with a reason of its own, and the step, that programs can read; also after an export."""
    cluster.create({"output": {"merge": True}} if exports else None)
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    current = cluster.current()
    assert current is not None
    current[1].early_stopped = True
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert cluster.condition("Succeeded") == ("True", "EarlyStopped")
    assert (cluster.status.reason, cluster.condition("Ready"), cluster.condition("Failed")) == (
        "EarlyStopped",
        ("True", "EarlyStopped"),
        ("False", "EarlyStopped"),
    )
    assert (cluster.status.artifacts.early_stopped, cluster.status.artifacts.step) == (True, 100)
    assert "at step 100 (stopped early)" in cluster.event("Succeeded")


@pytest.mark.parametrize(("name", "told"), [("finetune-storage", None), ("own-keys", "own-keys")])
async def test_the_secret_of_the_installation_is_told(name: str, told: str | None) -> None:
    """The trainer's messages and the command line name the Secret that the pods mount; a usual one changes no digest."""
    cluster = FakeCluster(SETTINGS.model_copy(update={"storage_secret": name}))
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.status.store_secret == told
    assert cluster.run_config(1).store.secret == told


async def test_pause_and_resume(cluster: FakeCluster) -> None:
    """Q-01, Q-10, R-14: pods go only after the answer is stored; the next run goes on from that step."""
    cluster.create()
    await cluster.until(lambda: cluster.status.progress is not None and cluster.status.progress.step >= 30, train=5)
    cluster.edit({"replicas": 0})
    await cluster.until(lambda: cluster.phase == "Pausing")
    assert cluster.pods()
    step = cluster.status.progress.step if cluster.status.progress else 0
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    assert not cluster.pods()
    assert not cluster.jobs()
    pause = cluster.status.pause
    assert pause is not None
    assert pause.saved
    assert pause.step is not None
    assert pause.step >= step
    assert (cluster.status.replicas, cluster.status.last_replicas) == (0, 1)
    assert cluster.condition("Suspended") == ("True", "UserRequested")
    cluster.edit({"replicas": 1})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert [(a.run, a.reason, a.from_step) for a in cluster.status.attempts] == [(1, "Created", 0), (2, "Resumed", pause.step)]
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)


async def test_a_new_operator_brings_the_ca_to_runs_it_did_not_make(cluster: FakeCluster) -> None:
    """Issue 6: the job reports on after an upgrade, also with the CA rotated."""
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    cluster.new_operator()
    assert not cluster.ca_namespaces
    await cluster.reconcile()
    assert cluster.ca_namespaces == {cluster.key.namespace}

"""What a cancelled job wrote: kept for output.retentionDays, then removed, unless promoted (Q-08, OP-15, AC-58)."""

from __future__ import annotations

import pytest

from finetune_api.contract.termination import TerminationMessage
from tests.support.operator_cluster import FakeCluster

DAY = 86400


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


async def cancelled(cluster: FakeCluster, **spec: object) -> None:
    """A job that trained and was cancelled."""
    cluster.create(dict(spec))
    await cluster.until(lambda: cluster.phase == "Training" and cluster.status.checkpoints.latest is not None, train=5)
    cluster.edit({"desiredState": "Cancelled"})
    await cluster.until(lambda: cluster.phase == "Cancelled", train=1)
    await cluster.settle()


async def days_pass(cluster: FakeCluster, days: float) -> None:
    cluster.clock.advance(days * DAY)
    await cluster.settle(rounds=40)


async def test_kept_on_day_29_gone_on_day_31(cluster: FakeCluster) -> None:
    """AC-58: by default 30 days; the cleanup pod is made from the last run, and nothing stays behind in the cluster."""
    await cancelled(cluster)
    assert cluster.status.artifacts_expire_at is not None
    await days_pass(cluster, 29)
    kept = cluster.status
    assert (kept.artifacts_removed_at, cluster.jobs("cleanup")) == (None, [])
    assert kept.checkpoints.latest is not None
    await days_pass(cluster, 2)
    removed = cluster.status
    assert removed.artifacts_removed_at is not None
    assert removed.checkpoints.latest is None
    assert "ArtifactsRemoved" in cluster.story()
    await cluster.settle(rounds=20, advance=True)
    assert {key[0] for key in cluster.api.objects} == {"finetunejobs", "events"}
    assert cluster.phase == "Cancelled"


async def test_a_waiting_job_costs_one_read(cluster: FakeCluster) -> None:
    """Thousands of cancelled jobs rest at the price of a GET each."""
    await cancelled(cluster)
    assert {key[0] for key in cluster.api.objects} == {"finetunejobs", "events", "configmaps"}
    calls = len(cluster.api.calls)
    await cluster.reconcile()
    assert len(cluster.api.calls) == calls + 1
    assert cluster.wake == pytest.approx(30 * DAY, rel=0.01)


async def test_promoted_artefacts_stay(cluster: FakeCluster) -> None:
    """AC-58: kept if registered; taking the promotion back starts no new period."""
    await cancelled(cluster)
    cluster.annotate(**{"finetune.dev/promoted": "support-bot"})
    await cluster.settle()
    await days_pass(cluster, 40)
    assert (cluster.status.artifacts_removed_at, cluster.status.artifacts_expire_at) == (None, None)
    cluster.annotate(**{"finetune.dev/promoted": None})
    await cluster.settle(rounds=40)
    assert cluster.status.artifacts_removed_at is not None


async def test_the_period_begins_at_the_cancel(cluster: FakeCluster) -> None:
    """OP-15: however long the job had been paused before."""
    cluster.create({"output": {"retentionDays": 3}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.clock.advance(10 * DAY)
    cluster.edit({"desiredState": "Cancelled"})
    await cluster.settle(rounds=40)
    await days_pass(cluster, 2)
    assert cluster.status.artifacts_removed_at is None
    await days_pass(cluster, 2)
    assert cluster.status.artifacts_removed_at is not None


async def test_a_longer_period_may_be_asked_for_later(cluster: FakeCluster) -> None:
    await cancelled(cluster)
    cluster.edit({"output": {"retentionDays": 60}})
    await cluster.settle()
    await days_pass(cluster, 45)
    assert cluster.status.artifacts_removed_at is None
    assert cluster.status.observed_generation == cluster.manifest["metadata"]["generation"]


async def test_a_store_that_is_away_is_asked_again(cluster: FakeCluster) -> None:
    await cancelled(cluster)
    cluster.verb_exit["cleanup"] = TerminationMessage(contract_version=1, run=1, pod=0, exit_code=77, message="The store does not answer.")
    await days_pass(cluster, 31)
    assert cluster.status.artifacts_removed_at is None
    assert "The store does not answer." in cluster.event("ArtifactsNotRemoved")
    del cluster.verb_exit["cleanup"]
    cluster.clock.advance(3700)
    await cluster.settle(rounds=40)
    assert cluster.status.artifacts_removed_at is not None


async def test_without_the_last_run_nothing_can_be_removed_and_that_is_said(cluster: FakeCluster) -> None:
    await cancelled(cluster)
    cluster.api.remove(("configmaps", "default", "demo-r1"))
    await days_pass(cluster, 31)
    assert cluster.status.output_uri is not None
    assert cluster.status.output_uri in cluster.event("ArtifactsNotRemoved")
    calls = len(cluster.api.calls)
    await cluster.reconcile()
    assert len(cluster.api.calls) == calls + 1


async def test_cancelled_before_the_first_run_there_is_nothing_to_keep(cluster: FakeCluster) -> None:
    cluster.create({"desiredState": "Cancelled"})
    await cluster.settle(advance=True, rounds=5)
    assert cluster.status.artifacts_expire_at is None
    assert cluster.condition("Reconciling") == ("False", "Done")

"""A CRD newer than the operator: for moments at each upgrade, for long where CRDs are installed apart or the chart was rolled back."""

from __future__ import annotations

from tests.support.operator_cluster import FakeCluster


async def trains() -> FakeCluster:
    cluster = FakeCluster()
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    return cluster


async def test_fields_of_a_newer_status_do_no_harm() -> None:
    """What a later operator wrote is passed over; the run goes to its end."""
    cluster = await trains()
    newer = {"status": {"fieldOfTheFuture": {"a": 1}, "usage": {"dreamingSeconds": 3}}}
    cluster.api.change("finetunejobs", cluster.key.namespace, cluster.key.name, newer)
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert (cluster.status.run, cluster.status.attempt_count) == (1, 1)


async def test_a_field_of_a_newer_spec_is_named_and_the_run_goes_on() -> None:
    """Nothing is guessed: an older operator says that it does not know the field, and leaves the run alone."""
    cluster = await trains()
    cluster.edit({"training": {"fieldOfTheFuture": 2}})
    await cluster.settle(rounds=10)
    (valid,) = (c for c in cluster.status.conditions if c.type == "Valid")
    assert valid.status == "False"
    assert "spec.training.fieldOfTheFuture: unknown field" in valid.message
    assert (cluster.phase, cluster.status.run) == ("Training", 1)
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert cluster.status.attempt_count == 1

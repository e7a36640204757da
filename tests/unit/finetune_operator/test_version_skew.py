"""A CRD newer than the operator: for moments at each upgrade, for long where CRDs are installed apart or the chart was rolled back."""

from __future__ import annotations

from tests.support.dataset_cluster import DatasetCluster
from tests.support.operator_cluster import NAMESPACE, FakeCluster


async def trains() -> FakeCluster:
    cluster = FakeCluster()
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    return cluster


async def write_as_newer(cluster: FakeCluster) -> None:
    """A later operator wrote fields of its own, at the top, in an object and in the items of lists."""
    status = cluster.manifest["status"]
    newer = {
        "fieldOfTheFuture": {"a": 1},
        "usage": {"dreamingSeconds": 3},
        "checkpoints": {"latest": {"sealed": "yes"}},
        "attempts": [{**attempt, "weather": "fair"} for attempt in status["attempts"]],
        "conditions": [{**condition, "severity": "Info"} for condition in status["conditions"]],
    }
    cluster.api.change("finetunejobs", NAMESPACE, cluster.key.name, {"status": newer})


async def test_fields_of_a_newer_status_do_no_harm_and_stay() -> None:
    """What a later operator wrote is passed over and kept; the run goes to its end."""
    cluster = await trains()
    await cluster.until(lambda: cluster.status.checkpoints.latest is not None, train=5)
    await write_as_newer(cluster)
    writes = len(cluster.api.history)
    await cluster.settle()
    assert all(plural != "finetunejobs" for plural, _, _ in cluster.api.history[writes:]), "nothing of it is written again and again"
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)
    assert (cluster.status.run, cluster.status.attempt_count) == (1, 1)
    stored = cluster.manifest["status"]
    assert (stored["fieldOfTheFuture"], stored["usage"]["dreamingSeconds"]) == ({"a": 1}, 3)
    assert (stored["attempts"][0]["outcome"], stored["attempts"][0]["weather"]) == ("Succeeded", "fair")
    assert {c["type"] for c in stored["conditions"] if c.get("severity") == "Info"} >= {"Ready", "Reconciling", "Valid"}


async def test_what_a_newer_version_says_of_a_thing_goes_with_the_thing() -> None:
    """Another checkpoint is the newest now: what was said of the one before is not said of it. A field this version knows is removed."""
    cluster = await trains()
    await cluster.until(lambda: cluster.status.checkpoints.latest is not None, train=5)
    await write_as_newer(cluster)
    before = cluster.status.checkpoints.latest
    assert before is not None
    await cluster.until(lambda: cluster.status.checkpoints.latest != before, train=5)
    assert "sealed" not in cluster.manifest["status"]["checkpoints"]["latest"]
    cluster.edit({"limits": {"maxActiveSeconds": 1}})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.api.change("finetunejobs", NAMESPACE, cluster.key.name, {"status": {"hold": {"until": "raised"}}})
    cluster.edit({"limits": {"maxActiveSeconds": 100000}})
    cluster.annotate(**{"finetune.dev/request": "resume/1"})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert "hold" not in cluster.manifest["status"]


async def test_fields_of_a_newer_status_of_a_dataset_stay() -> None:
    cluster = DatasetCluster()
    cluster.add_dataset()
    await cluster.rest()
    cluster.api.change("datasets", NAMESPACE, "rows", {"status": {"fieldOfTheFuture": {"a": 1}}})
    cluster.edit_dataset(uri="configmap://rows/other.jsonl")
    await cluster.rest()
    assert cluster.found.looks == 2
    assert cluster.dataset_manifest["status"]["fieldOfTheFuture"] == {"a": 1}


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

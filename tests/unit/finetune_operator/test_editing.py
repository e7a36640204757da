"""The spec: presets, defaults, what an edit does to a job that has run, what status says of it."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.constants import API_VERSION, CLUSTER_PRESET_KIND, PRESET_KIND
from tests.support.operator_cluster import NAMESPACE, FakeCluster


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


def add_preset(cluster: FakeCluster, name: str, spec: dict[str, Any], *, namespace: str = NAMESPACE) -> None:
    kind, plural = (PRESET_KIND, "finetunepresets") if namespace else (CLUSTER_PRESET_KIND, "clusterfinetunepresets")
    manifest = {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": spec}
    cluster.api.add(plural, manifest)


def source_of(cluster: FakeCluster, path: str) -> tuple[str, str]:
    entry = cluster.status.resolved[path]
    return entry.value, entry.source


async def paused(cluster: FakeCluster, **spec: object) -> None:
    """A job that has run and is paused."""
    cluster.create(dict(spec))
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)


async def test_presets_and_defaults_show_with_their_source(cluster: FakeCluster) -> None:
    """Design §3: job > preset > adapter > base; nothing is written into spec."""
    add_preset(cluster, "fast", {"training": {"learningRate": 0.001, "epochs": 7}, "adapter": {"rank": 4}}, namespace="")
    cluster.create({"presetRef": {"name": "fast"}, "training": {"epochs": 3}})
    written = cluster.manifest["spec"]
    await cluster.settle()
    assert source_of(cluster, "training.learningRate") == ("0.001", "preset")
    assert source_of(cluster, "adapter.alpha") == ("4", "derived")
    assert source_of(cluster, "training.batchSize") == ("2", "default")
    assert "training.epochs" not in cluster.status.resolved
    config = cluster.run_config(1)
    assert (config.spec.training.learning_rate, config.spec.training.epochs, config.spec.adapter.rank) == (0.001, 3, 4)
    assert cluster.manifest["spec"] == written


async def test_method_and_gpus_show_before_there_is_a_pod(cluster: FakeCluster) -> None:
    """A-09: for the columns of kubectl get, from wherever the values come; a resize shows too."""
    add_preset(cluster, "big", {"method": "kto", "resources": {"device": "gpu", "gpusPerReplica": 4}}, namespace="")
    cluster.create({"presetRef": {"name": "big"}, "resources": {}, "replicas": 2, "suspend": True})
    await cluster.settle()
    assert (cluster.phase, cluster.jobs()) == ("Paused", [])
    assert (cluster.status.method, cluster.status.gpus) == ("kto", 8)
    cluster.edit({"replicas": 1})
    await cluster.settle()
    assert cluster.status.gpus == 4


async def test_method_and_gpus_of_a_run_of_an_older_operator_show_at_the_first_look(cluster: FakeCluster) -> None:
    """A-09: from what the run was made of, in one write; nothing else is touched, and a next look reads and writes nothing of it."""
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    await cluster.settle()
    before = {**cluster.manifest["status"]}
    cluster.api.change("finetunejobs", NAMESPACE, cluster.key.name, {"status": {"method": None, "gpus": None}})
    cluster.new_operator()
    made = len(cluster.api.calls)
    await cluster.reconcile()
    assert cluster.manifest["status"] == before
    assert [call.method for call in cluster.api.calls[made:] if call.is_write] == ["PATCH"]
    made = len(cluster.api.calls)
    await cluster.reconcile()
    assert not [call for call in cluster.api.calls[made:] if call.is_write or "/configmaps/" in call.path]


async def test_a_job_on_cpu_asks_for_no_gpu(cluster: FakeCluster) -> None:
    """A-09: the column says 0, and is not empty."""
    cluster.create()
    await cluster.settle()
    assert (cluster.manifest["status"]["method"], cluster.manifest["status"]["gpus"]) == ("sft", 0)


async def test_an_attached_adapter_is_warned_of_once(cluster: FakeCluster) -> None:
    """R-12: one event, and a condition that stays over edits and runs."""
    await paused(cluster, adapter={"attach": {"uri": "s3://models/first"}})
    cluster.edit({"suspend": False, "training": {"learningRate": 0.0002}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    assert cluster.story().count("AttachLoraNotRecommended") == 1
    assert "may be unstable" in cluster.event("AttachLoraNotRecommended")
    assert cluster.condition("AttachLoraNotRecommended") == ("True", "Advice")


async def test_a_preset_of_the_namespace_comes_before_one_of_the_cluster(cluster: FakeCluster) -> None:
    """K-01: same name, two scopes."""
    add_preset(cluster, "fast", {"adapter": {"rank": 4}}, namespace="")
    add_preset(cluster, "fast", {"adapter": {"rank": 32}})
    cluster.create({"presetRef": {"name": "fast"}})
    await cluster.settle()
    assert source_of(cluster, "adapter.rank") == ("32", "preset")


async def test_a_missing_preset_is_said_and_waited_for(cluster: FakeCluster) -> None:
    """Valid=False with a sentence before anything is asked for; it goes on when the preset appears."""
    cluster.create({"presetRef": {"name": "later"}})
    await cluster.settle()
    assert (cluster.phase, cluster.status.reason, cluster.jobs()) == ("Pending", "PresetUnavailable", [])
    assert cluster.condition("Valid") == ("False", "PresetUnavailable")
    assert cluster.condition("Stalled") == ("True", "PresetUnavailable")
    add_preset(cluster, "later", {"adapter": {"rank": 4}})
    await cluster.settle(advance=True, rounds=6)
    assert cluster.status.run == 1


async def test_cross_field_rules_are_judged_with_the_preset_in_place(cluster: FakeCluster) -> None:
    """A contradiction between job and preset names the field and the fix."""
    add_preset(cluster, "half", {"precision": {"fp16": True}})
    cluster.create({"presetRef": {"name": "half"}, "precision": {"bf16": True}})
    await cluster.settle()
    valid = next(c for c in cluster.status.conditions if c.type == "Valid")
    assert (valid.status, valid.reason) == ("False", "Invalid")
    assert "precision" in valid.message
    assert cluster.jobs() == []


async def test_an_edited_or_deleted_preset_does_not_change_a_job_that_has_run(cluster: FakeCluster) -> None:
    """Pinned runs: what the first run was made from stays."""
    add_preset(cluster, "fast", {"adapter": {"rank": 4}, "training": {"learningRate": 0.001}})
    await paused(cluster, presetRef={"name": "fast"})
    cluster.api.change("finetunepresets", NAMESPACE, "fast", {"spec": {"adapter": {"rank": 64}, "training": {"learningRate": 0.5}}})
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    config = cluster.run_config(2)
    assert (config.spec.adapter.rank, config.spec.training.learning_rate) == (4, 0.001)
    assert source_of(cluster, "adapter.rank") == ("4", "preset")


async def test_an_identity_edit_of_a_running_job_is_refused_and_touches_no_pod(cluster: FakeCluster) -> None:
    """Design §3: Valid=False names field, values and ways out; GitOps sees it stalled; training goes on."""
    cluster.create({"adapter": {"rank": 8}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    pods = [pod["metadata"]["uid"] for pod in cluster.pods()]
    cluster.edit({"adapter": {"rank": 16}})
    await cluster.settle()
    assert cluster.phase == "Training"
    assert [pod["metadata"]["uid"] for pod in cluster.pods()] == pods
    valid = next(c for c in cluster.status.conditions if c.type == "Valid")
    assert valid.reason == "EditRefused"
    assert "spec.adapter.rank is 16, run 1 was started with 8" in valid.message
    assert "put the old value back, or create a new job" in valid.message
    assert [cluster.condition(kind) for kind in ("Ready", "Stalled", "Reconciling")] == [
        ("False", "EditRefused"),
        ("True", "EditRefused"),
        ("False", "EditRefused"),
    ]
    assert cluster.story().count("EditRefused") == 1
    cluster.edit({"adapter": {"rank": 8}})
    await cluster.settle()
    assert cluster.condition("Ready") == ("True", "Training")
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)


async def test_an_identity_edit_keeps_a_paused_job_from_starting_until_it_is_undone(cluster: FakeCluster) -> None:
    await paused(cluster, adapter={"rank": 8})
    cluster.edit({"adapter": {"rank": 16}, "suspend": False})
    await cluster.settle(advance=True, rounds=3)
    assert (cluster.phase, cluster.status.reason, cluster.pods()) == ("Pending", "EditRefused", [])
    cluster.edit({"adapter": {"rank": 8}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)


async def test_schedule_and_free_fields_take_effect_at_the_next_run(cluster: FakeCluster) -> None:
    """P-14: learning rate, epochs, logging may be edited; the next run has them."""
    await paused(cluster)
    cluster.edit({"training": {"learningRate": 0.0005, "epochs": 5}, "logging": {"steps": 3}, "suspend": False})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    spec = cluster.run_config(2).spec
    assert (spec.training.learning_rate, spec.training.epochs, spec.logging.steps) == (0.0005, 5, 3)


async def test_an_edit_of_the_accumulation_itself_is_refused(cluster: FakeCluster) -> None:
    """The global batch is identity; the message has the value that keeps it."""
    await paused(cluster, training={"batchSize": 2, "gradAccumSteps": 4})
    cluster.edit({"training": {"gradAccumSteps": 6}, "suspend": False})
    await cluster.settle(advance=True, rounds=2)
    valid = next(c for c in cluster.status.conditions if c.type == "Valid")
    assert "spec.training.gradAccumSteps is 6, which changes the global batch from 8 to 12; write 4" in valid.message


async def test_batch_and_accumulation_may_change_together(cluster: FakeCluster) -> None:
    await paused(cluster, training={"batchSize": 2, "gradAccumSteps": 4})
    cluster.edit({"training": {"batchSize": 4, "gradAccumSteps": 2}, "suspend": False})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.run_config(2).spec.training.batch_size == 4


async def test_the_first_status_write_after_an_edit_bumps_the_observed_generation(cluster: FakeCluster) -> None:
    """kstatus, kubectl wait: a lagging observedGeneration is a silent time-out."""
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.edit({"logging": {"steps": 3}})
    generation = cluster.manifest["metadata"]["generation"]
    at = len(cluster.api.history)
    await cluster.reconcile()
    first = next(manifest["status"] for plural, _, manifest in cluster.api.history[at:] if plural == "finetunejobs")
    assert first["observedGeneration"] == generation
    assert {condition["observedGeneration"] for condition in first["conditions"] if condition["type"] != "CheckpointReady"} == {generation}


async def test_a_job_that_nothing_happens_to_is_not_written(cluster: FakeCluster) -> None:
    """Status only when changed, whatever phase it rests in."""
    cluster.create()
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    await cluster.settle()
    version = cluster.manifest["metadata"]["resourceVersion"]
    for _ in range(3):
        cluster.clock.advance(5)
        await cluster.reconcile()
    assert cluster.manifest["metadata"]["resourceVersion"] == version

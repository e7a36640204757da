"""Every field of a stopped job is edited once: the change works from the resumed step, or is refused by name (resume classes)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.describe import describe_meaning
from finetune_api.models.base import ResumeClass
from finetune_api.models.partial import JobInput
from finetune_api.resolve import flatten, resolve, resume_classes, unflatten
from finetune_api.schema import structural
from tests.support.fake_kueue import QueuedCluster
from tests.support.operator_cluster import FakeCluster
from tests.support.specs import OF_METHOD_REF, candidates

ALSO: dict[str, dict[str, Any]] = {
    "resources.queuePriorityClass": {"resources.queue": "team-a"},
    "resources.topology.ranks": {"resources.topology.key": "topology.kubernetes.io/zone"},
}
"""What a field means nothing without."""
OF_METHOD: dict[str, dict[str, Any]] = {
    "dpo": {"method": "dpo"},
    "kto": {"method": "kto"},
    "reward": {"method": "reward"},
    "grpo": {"method": "grpo", "grpo.rewardFunctions": [{"type": "length", "maxTokens": 6}]},
}
"""Jobs whose method has a block of its own."""
WITHOUT_NAME = frozenset({"presetRef.kind", *OF_METHOD_REF})
"""Fields that mean nothing without a name; those of methodRef are edited in test_training_methods."""
LEVERS = frozenset({"suspend", "desiredState"})
"""How a job is stopped and started; edited by every other test."""
BASE: dict[str, Any] = {
    "model.uri": "s3://models/tiny",
    "model.region": "eu-west-1",
    "model.tokenizer.uri": "s3://models/tokenizer",
    "dataset.uri": "s3://data/train.jsonl",
    "dataset.secretRef.name": "data",
    "dataset.region": "eu-west-1",
    "dataset.evalUri": "s3://data/eval.jsonl",
    "evaluation.strategy": "steps",
    "resources.device": "cpu",
    "resources.processesPerReplica": 1,
    "training.batchSize": 2,
    "training.gradAccumSteps": 4,
    "training.maxSeqLength": 512,
    "checkpoint.keepLast": 2,
}
NEW: dict[str, Any] = {
    "model.uri": "s3://models/other",
    "model.tokenizer.uri": "s3://models/other-tokenizer",
    "dataset.uri": "s3://data/other.jsonl",
    "dataset.evalUri": "s3://data/other-eval.jsonl",
    "dataset.evalRatio": 0.2,
    "dataset.trainRatio": 0.9,
    "dataset.format": "text",
    "dataset.promptMaxLength": 256,
    "dataset.contentMaxLength": 256,
    "adapter.alpha": 64,
    "adapter.rank": 8,
    "adapter.targetModules": ["q_proj"],
    "adapter.peftConfig": "configmap://peft/adapter_config.json",
    "output.uri": "s3://elsewhere/prefix",
    "training.maxSeqLength": 256,
    "training.maxSteps": 77,
    "training.batchSize": 4,
    "training.gradAccumSteps": 8,
    "replicas": 2,
    "resources.processesPerReplica": 2,
    "resources.tolerations": [{"operator": "Exists"}],
    "resources.nodeSelector": {"pool": "gpu"},
    "checkpoint.keepLast": 3,
    "checkpoint.keepLastRemote": 50,
    "checkpoint.resumeFrom": "checkpoint-20",
    "logging.trackers": [{"type": "tensorboard"}],
    "displayName": "Another name",
}
"""Values that are taken instead of the first candidate that differs."""
REFUSED_BY_A_RULE = {
    "dataset.evalRatio": "dataset.evalRatio",
    "adapter.type": "adapter.",
    "dataset.promptColumn": "dataset.promptColumn",
    "dataset.outputColumn": "dataset.outputColumn",
    "presetRef.name": "presetRef.name",
    "output.push.enabled": "output.push.repoId",
    "resources.gpuType": "resources.gpuType",
}
"""Edits that contradict the rest of this job: the rule's message names the field, too."""


def base(path: str) -> dict[str, Any]:
    """Fields of a job that the field belongs to."""
    attached = {"adapter.attach.uri": "s3://models/first"} if path.startswith("adapter.attach.") and not path.endswith(".uri") else {}
    return {**BASE, **OF_METHOD.get(path.partition(".")[0], {}), **attached}


def edits() -> dict[str, Any]:
    """For every field there is, a value other than the one it has."""
    choices = candidates(structural(JobInput, describe_meaning))
    for path in WITHOUT_NAME:
        del choices[path]
    others = {path: [value for value in values if value != present(path)] for path, values in choices.items() if path not in LEVERS}
    return {path: NEW[path] if path in NEW else values[0] if values else None for path, values in others.items()}


def present(path: str) -> object:
    """Value of a field before the edit."""
    return flatten(resolve(unflatten(base(path))).spec.model_dump(mode="json", by_alias=True, exclude_none=True)).get(path)


EDITS = edits()
CLASSES = resume_classes()


async def stopped(path: str) -> FakeCluster:
    """A job with this field that trained to a checkpoint and was stopped."""
    cluster = QueuedCluster(quota=8)
    cluster.create(unflatten(base(path)))
    await cluster.until(lambda: cluster.phase == "Training" and cluster.status.checkpoints.latest is not None, train=10)
    cluster.edit({"desiredState": "Stopped"})
    await cluster.until(lambda: cluster.phase == "Stopped", train=1)
    return cluster


def message(cluster: FakeCluster) -> str:
    return next(c.message for c in cluster.status.conditions if c.type == "Valid" and c.status == "False")


def test_every_field_has_a_case() -> None:
    assert set(EDITS) | LEVERS | WITHOUT_NAME >= set(CLASSES)
    assert [path for path, value in EDITS.items() if value is None] == [], "name another value in NEW"


@pytest.mark.parametrize("path", sorted(EDITS))
async def test_an_edit_works_or_is_refused_by_name(path: str) -> None:
    """Issue: "a test edits every field of a stopped job and checks that the change works from the resumed step or is refused by name"."""
    cluster = await stopped(path)
    pause = cluster.status.pause
    assert pause is not None
    value = EDITS[path]
    cluster.edit({**unflatten({path: value, **ALSO.get(path, {})}), "desiredState": "Running"})
    await cluster.settle(rounds=30)
    identity = CLASSES.get(path) is ResumeClass.IDENTITY and path != "training.batchSize"
    if path in REFUSED_BY_A_RULE or identity:
        assert (cluster.phase, cluster.status.run, cluster.pods()) == ("Pending", 1, []), cluster.status.reason
        named = REFUSED_BY_A_RULE.get(path, path)
        assert named in message(cluster)
        return
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.status.attempts[-1].from_step == pause.step
    leaves = flatten(cluster.run_config(2).spec.model_dump(mode="json", by_alias=True, exclude_none=True))
    assert leaves[path] == value
    total = cluster.run_config(2).topology.world_size * leaves["training.batchSize"] * leaves["training.gradAccumSteps"]
    assert total == 8, "the global batch is kept"


async def test_a_refused_edit_taken_back_goes_on() -> None:
    cluster = await stopped("training.seed")
    cluster.edit({"training": {"seed": 7}, "desiredState": "Running"})
    await cluster.settle(rounds=30)
    assert "spec.training.seed is 7, run 1 was started with 42" in message(cluster)
    cluster.edit({"training": {"seed": 42}})
    await cluster.until(lambda: cluster.phase == "Succeeded", train=10)

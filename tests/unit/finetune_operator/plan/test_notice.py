"""Measured checkpoint time against the notice of a node, and the save interval that costs least."""

from __future__ import annotations

import math

import pytest

from finetune_operator.plan.notice import SLOW_CHECKPOINT, suggested_minutes
from tests.support.operator_cluster import FakeCluster


@pytest.mark.parametrize(
    ("save", "upload", "between", "minutes"),
    [
        (2.0, 100.0, 4 * 3600, math.ceil(math.sqrt(2 * 2 * 4 * 3600) / 60)),
        (0.0, 30.0, 600, 1),
        (60.0, 7200.0, 600, 121),
        (3600.0, 36000.0, 10**8, 1440),
    ],
)
def test_the_interval_is_youngs_within_bounds(save: float, upload: float, between: float, minutes: int) -> None:
    """J. W. Young 1974: sqrt(2 C M); never shorter than a checkpoint takes, never beyond what the field allows."""
    assert suggested_minutes(save, upload, between) == minutes


async def slow(notice: dict[str, object]) -> FakeCluster:
    cluster = FakeCluster()
    cluster.checkpoint_seconds = (4.0, 90.0)
    cluster.create({"pausePolicy": {"timeoutSeconds": 600, "ifUnsaved": "Wait", "graceSeconds": 120, **notice}})
    await cluster.until(lambda: cluster.phase == "Training", train=25)
    await cluster.train(1)
    await cluster.reconcile()
    return cluster


async def test_a_checkpoint_slower_than_the_notice_is_said_with_an_interval() -> None:
    """Q-11: the condition names both times and the field to set."""
    cluster = await slow({"noticeSeconds": 30})
    found = next(c for c in cluster.status.conditions if c.type == SLOW_CHECKPOINT)
    assert "takes 94 s" in found.message
    assert "30 s (pausePolicy.noticeSeconds)" in found.message
    assert "checkpoint.intervalMinutes" in found.message
    assert cluster.story().count(SLOW_CHECKPOINT) == 1


async def test_a_checkpoint_within_the_grace_is_no_news() -> None:
    cluster = await slow({})
    assert cluster.condition(SLOW_CHECKPOINT) is None


async def test_a_longer_notice_clears_it() -> None:
    cluster = await slow({"noticeSeconds": 30})
    cluster.edit({"pausePolicy": {"noticeSeconds": 120}})
    await cluster.reconcile()
    assert cluster.condition(SLOW_CHECKPOINT) is None

"""Measured checkpoint time against the notice of a node, and the save interval that costs least."""

from __future__ import annotations

import math

import pytest

from finetune_api.contract.termination import TerminationMessage
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


def foretold(seconds: float, **spec: object) -> FakeCluster:
    """A job whose preflight estimates the time of a checkpoint."""
    facts = {"sizeBytes": 40_000_000_000, "uploadBytesPerSecond": 50_000_000, "saveSeconds": 80.0, "uploadSeconds": seconds - 80}
    cluster = FakeCluster()
    cluster.verb_exit["preflight"] = TerminationMessage(contract_version=1, run=1, pod=0, exit_code=0, result={"checkpoint": facts})
    cluster.create({"resources": {"device": "gpu"}, **spec})
    return cluster


async def test_an_estimate_is_compared_before_a_gpu_is_asked_for() -> None:
    """OP-11: size, speed, time, notice and the interval, from preflight on."""
    cluster = foretold(880)
    await cluster.until(lambda: cluster.status.preflight_digest is not None)
    assert (cluster.status.run, cluster.condition(SLOW_CHECKPOINT)) == (0, ("True", "Estimated"))
    said = cluster.event(SLOW_CHECKPOINT)
    assert "of 40,000.0 MB at 50.0 MB/s is estimated to take 880 s" in said
    assert "120 s (pausePolicy.graceSeconds)" in said
    assert f"Save every {suggested_minutes(80, 800, 4 * 3600)} minutes" in said
    assert cluster.status.estimate is not None
    assert cluster.status.estimate.checkpoint is not None
    assert cluster.status.estimate.checkpoint.upload_seconds == 800


async def test_an_estimate_within_the_notice_is_no_news() -> None:
    """OP-11"""
    cluster = foretold(100)
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.condition(SLOW_CHECKPOINT) is None


@pytest.mark.parametrize(("measured", "condition"), [((4.0, 90.0), None), ((4.0, 300.0), ("True", "Measured"))])
async def test_what_is_measured_takes_the_place_of_the_estimate(measured: tuple[float, float], condition: tuple[str, str] | None) -> None:
    """OP-11: the first checkpoint decides, and the estimate does not come back with the next run."""
    cluster = foretold(880)
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.condition(SLOW_CHECKPOINT) == ("True", "Estimated")
    cluster.checkpoint_seconds = measured
    await cluster.until(lambda: cluster.status.checkpoints.latest is not None, train=5)
    assert cluster.condition(SLOW_CHECKPOINT) == condition
    cluster.checkpoint_seconds = None
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.condition(SLOW_CHECKPOINT) == condition
    assert cluster.story().count(SLOW_CHECKPOINT) == (1 if condition is None else 2)

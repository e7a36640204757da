"""What dies is replaced, and what was committed is not trained again."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.in_pod import kill_worker
from tests.support.platform import BUCKET, Job, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e
STEPS, INTERVAL = 200, 50
SPEC: dict[str, Any] = {"replicas": 2, "training": {"gradAccumSteps": 2, "maxSteps": STEPS}, "checkpoint": {"steps": INTERVAL}}


def committed(job: Job, step: int) -> None:
    """Wait until a checkpoint of at least this step is complete in the store."""
    eventually(
        lambda: (job.status.get("checkpoints", {}).get("latest") or {}).get("step", 0) >= step or None,
        within=240,
        what=f"checkpoint {step}",
    )


@pytest.mark.parametrize("victim", ["rank-0", "rank-1", "pod-0"])
def test_a_killed_part_costs_at_most_the_save_interval(run_job: JobFactory, victim: str, fault: Fault) -> None:
    """SIGKILL of a worker or of a pod: the group restarts from the last complete checkpoint; what was lost is said (OP-11)."""
    job = run_job(f"killed-{victim}", SPEC)
    committed(job, INTERVAL)
    fault.strikes("pod deleted by force (grace period 0)" if victim == "pod-0" else f"SIGKILL of {victim.replace('-', ' ')} of two")
    if victim == "pod-0":
        job.kubectl("delete", "pod", job.pod(0), "--grace-period=0", "--force")
    else:
        rank = int(victim[-1])
        job.kubectl("exec", job.pod(rank), "-c", "trainer", "--", "python", "-c", kill_worker(rank))
    eventually(lambda: job.status.get("run", 0) >= 2 or None, within=180, what="a second run")
    job.wait_training(run=2)
    fault.recovered()
    final = job.wait_phase("Succeeded")
    last = final["attempts"][-1]
    assert last["fromStep"] >= INTERVAL
    assert final.get("usage", {}).get("lostSteps", 0) <= 3 * INTERVAL, "at most the save interval and the steps of one upload"
    rows = job.rows()
    assert sorted(rows) == list(range(1, STEPS + 1))
    fault.ends_with(final)


def test_a_corrupt_checkpoint_is_refused_by_all(run_job: JobFactory, platform: Platform, fault: Fault) -> None:
    """The newest checkpoint does not match its checksum: every rank falls back to the one before, with a warning condition."""
    job = run_job("corrupt", SPEC)
    committed(job, INTERVAL)
    job.scale(0)
    status = job.wait_phase("Paused")
    newest = status["checkpoints"]["latest"]
    folder = f"{job.prefix}a{newest['attempt']}/checkpoint-{newest['step']}"
    manifest = json.loads(platform.read(f"{folder}/manifest.json"))
    largest = max(manifest["files"], key=lambda file: int(file["size"]))["path"]
    data = bytearray(platform.read(f"{folder}/{largest}"))
    data[len(data) // 2] ^= 0xFF
    fault.strikes("a byte of the newest checkpoint changed in the store")
    _put(platform, f"{folder}/{largest}", bytes(data))
    job.scale(2)
    attempt = eventually(lambda: next((a for a in job.status["attempts"] if a.get("attempt") == 2), None), within=240, what="attempt 2")
    assert 0 < attempt["fromStep"] < newest["step"]
    rejected = eventually(lambda: job.condition("CheckpointRejected") or None, within=30, what="the warning condition")
    assert str(newest["step"]) in rejected["message"]
    fault.ends("fell back together to the checkpoint before", newest["step"] - attempt["fromStep"])


def _put(platform: Platform, key: str, data: bytes) -> None:
    platform.store.put_object(BUCKET, key, io.BytesIO(data), len(data))

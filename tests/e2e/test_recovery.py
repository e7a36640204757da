"""What dies is replaced, and what was committed is not trained again."""

from __future__ import annotations

import io
import json
import os
import signal
from typing import Any

import pytest

from tests.e2e.conftest import JobFactory, Untouched, losses
from tests.support.host import complete_steps, supervisor
from tests.support.in_pod import kill_worker
from tests.support.platform import BUCKET, Job, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e
STEPS, INTERVAL = 400, 50
SPEC: dict[str, Any] = {"replicas": 2, "training": {"gradAccumSteps": 2, "maxSteps": STEPS}, "checkpoint": {"steps": INTERVAL}}
DEATHS = {
    "rank-0": "SIGKILL of rank 0 of two",
    "rank-1": "SIGKILL of rank 1 of two",
    "pod-0": "SIGKILL of a pod of two",
    "pod-0-forced": "pod deleted by force (grace period 0)",
}


def committed(job: Job, step: int) -> None:
    """Wait until a checkpoint of at least this step is complete in the store."""
    eventually(
        lambda: (job.status.get("checkpoints", {}).get("latest") or {}).get("step", 0) >= step or None,
        within=240,
        what=f"checkpoint {step}",
    )


@pytest.mark.parametrize("victim", DEATHS)
def test_a_death_costs_at_most_the_save_interval(run_job: JobFactory, untouched: Untouched, victim: str, fault: Fault) -> None:
    """It goes on from the last complete checkpoint to the same losses; what is lost is said and within the bound (OP-11, design 7)."""
    reference = untouched(SPEC)
    job = run_job(f"killed-{victim}", SPEC)
    committed(job, INTERVAL)
    fault.strikes(DEATHS[victim])
    kill(job, victim)
    eventually(lambda: job.status.get("run", 0) >= 2 or None, within=180, what="a second run")
    job.wait_training(run=2)
    fault.recovered()
    final = job.wait_phase("Succeeded")
    resumed, lost = final["attempts"][-1]["fromStep"], final.get("usage", {}).get("lostSteps", 0)
    reached = max(json.loads(line)["step"] for line in job.read("metrics/attempt-1.jsonl").splitlines())
    if victim.startswith("rank"):  # its supervisor lives: it uploads what is whole, and every row
        assert abs(lost - (reached - resumed)) <= 1, "a row may be on its way when its writer dies"
        assert resumed == max(complete_steps(job, attempt=1)), "nothing that was whole is lost"
        assert resumed >= reached // INTERVAL * INTERVAL - INTERVAL, "at most one save was being written behind the training (ADR 6)"
    else:  # the rows end with the last upload: only the heartbeat tells more. To a pod deleted by force the kubelet leaves a moment to save
        assert reached - resumed <= lost <= 2 * INTERVAL, "the save interval and one upload, which is shorter than another interval"
    assert sorted(job.rows()) == list(range(1, STEPS + 1))
    assert losses(job) == losses(reference)
    fault.ends_with(final)


def kill(job: Job, victim: str) -> None:
    """Let a part of a run die."""
    match victim:
        case "pod-0":
            os.kill(supervisor(job, 0), signal.SIGKILL)
        case "pod-0-forced":
            job.kubectl("delete", "pod", job.pod(0), "--grace-period=0", "--force")
        case _:
            rank = int(victim[-1])
            job.kubectl("exec", job.pod(rank), "-c", "trainer", "--", "python", "-c", kill_worker(rank))


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

"""SIGKILL in the worst moments: while a checkpoint is written, and while it is uploaded (OP-11, R-06)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import JobFactory, Untouched, losses
from tests.support.host import complete_steps, supervisor
from tests.support.in_pod import kill_in_save
from tests.support.platform import BUCKET, ROOT, Job, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e
STEPS, INTERVAL = 60, 10
SPEC: dict[str, Any] = {
    "replicas": 2,
    "model": {"uri": "s3://finetune/models/tiny-small"},
    "adapter": {"type": "full", "rank": None, "targetModules": None},
    "training": {"batchSize": 1, "gradAccumSteps": 1, "maxSteps": STEPS, "learningRate": 1e-4},
    "checkpoint": {"steps": INTERVAL},
}
"""All weights of the larger tiny model: a checkpoint of 100 MB, so that writing and uploading it take long enough to be hit."""


@pytest.fixture(scope="module", autouse=True)
def larger_model(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The model of the demo in the store."""
    model: Path = tmp_path_factory.mktemp("model")
    subprocess.run([sys.executable, ROOT / "examples/tiny_model.py", model, "--params", "small"], check=True)
    for file in sorted(model.iterdir()):
        platform.store.fput_object(BUCKET, f"models/tiny-small/{file.name}", str(file))


def run_in_pod(job: Job, index: int, program: str) -> int:
    """Run a program in the trainer's container of a pod; returns the step it printed."""
    return int(job.kubectl("exec", job.pod(index), "-c", "trainer", "--", "python", "-c", program))


def kill_in_upload(job: Job, at_least: int) -> int:
    """SIGKILL pod 0's supervisor while a checkpoint of at least this step is on its way to the store; returns the step."""
    pid = supervisor(job, 0)

    def on_its_way() -> int | None:
        found = {(int(key.split("/")[1][11:]), Path(key).name) for key in job.objects() if key.startswith("a1/checkpoint-")}
        begun = {step for step, _ in found if step >= at_least} - {step for step, name in found if name == "manifest.json"}
        return min(begun, default=None)

    step = eventually(on_its_way, within=120, what="an upload", every=0.002)
    os.kill(pid, signal.SIGKILL)
    return step


@pytest.mark.parametrize("moment", ["save", "upload"])
def test_a_kill_in_the_middle_of_a_checkpoint(run_job: JobFactory, untouched: Untouched, moment: str, fault: Fault) -> None:
    """The half-made checkpoint never counts: the next attempt starts from the one before, and ends with the same losses."""
    reference = untouched(SPEC)
    job = run_job(f"killed-in-{moment}", SPEC)
    eventually(lambda: (job.status.get("checkpoints", {}).get("latest") or {}).get("step") or None, within=240, what="a checkpoint")
    broken = run_in_pod(job, 0, kill_in_save(0, 2 * INTERVAL)) if moment == "save" else kill_in_upload(job, 2 * INTERVAL)
    fault.strikes(f"SIGKILL of {'a worker' if moment == 'save' else 'a pod'} during {'a save' if moment == 'save' else 'an upload'}")
    eventually(lambda: job.status.get("run", 0) >= 2 or None, within=180, what="a second run")
    assert f"a1/checkpoint-{broken}/manifest.json" not in job.objects(), f"the kill came after checkpoint-{broken} was complete"
    job.wait_training(run=2)
    fault.recovered()
    final = job.wait_phase("Succeeded")
    last = final["attempts"][-1]
    assert INTERVAL <= last["fromStep"] < broken
    assert last["fromStep"] == max(complete_steps(job, attempt=1)), "nothing that was whole is lost"
    assert 0 < final["usage"]["lostSteps"] <= 3 * INTERVAL, (
        "the save interval, and what was trained while the save was written and uploaded"
    )
    assert sorted(job.rows()) == list(range(1, STEPS + 1))
    assert losses(job) == losses(reference)
    fault.ends_with(final)

"""Latency of pauses by ``kubectl scale --replicas=0``, in its parts.

=======  ==============================================================================================================
ask      from the request until the trainer has the command (its next progress post), and until its answer is stored
agree    until all ranks have agreed on a step, as the trainer says
save     until the step is on local disk, likewise
upload   until the checkpoint is complete in the store, likewise
release  from the stored answer until no pod is left
=======  ==============================================================================================================
"""

from __future__ import annotations

import argparse
import random
import time
from typing import Any

from kubernetes import client

from benchmarks.environment import namespace, platform
from benchmarks.report import machine, percentile, show, spread
from finetune_api.constants import GROUP, PLURAL, VERSION
from tests.support.jobs import make_job
from tests.support.platform import Job

NAMESPACE = "bench-pause"
PARTS = ("ask", "agree", "save", "upload", "release", "total")
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 300.0
SEED = 42


def measure(job: Job) -> dict[str, float]:
    """Pause a training job; returns the seconds of each part."""
    api = client.CustomObjectsApi()
    began = time.monotonic()
    job.scale(0)
    answered = 0.0
    while True:
        document: Any = api.get_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, job.name)
        status: dict[str, Any] = document.get("status", {})
        now = time.monotonic()
        pause = status.get("pause") or {}
        if status.get("phase") in ("Pausing", "Paused") and pause.get("saved") is not None and not answered:
            answered = now
        if status.get("phase") == "Paused":
            break
        if now - began > PATIENCE_SECONDS or status.get("phase") in ("Failed", "Succeeded"):
            raise SystemExit(f"{job.name} is {status.get('phase')} instead of Paused\n{job.story()}")
        time.sleep(POLL_SECONDS)
    if not pause["saved"]:
        raise SystemExit(f"{job.name}: the pause saved nothing, so it says nothing about saving\n{pause}")
    parts = {name: float(pause["seconds"].get(name, 0.0)) for name in ("agree", "save", "upload")}
    return {"ask": answered - began - sum(parts.values()), **parts, "release": now - answered, "total": now - began}


def main() -> None:
    """Pause and resume one job again and again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pauses", type=int, default=10, help="pauses (default: %(default)s)")
    options = parser.parse_args()
    chance = random.Random(SEED)  # noqa: S311 - a seeded choice of moments
    before = machine()
    measured = []
    with platform() as cluster, namespace(cluster.kubectl, NAMESPACE) as kubectl:
        kubectl.apply(make_job("paused", {"training": {"maxSteps": 100_000}, "checkpoint": {"strategy": "no"}}))
        job = Job(cluster, kubectl, "paused")
        step = 0
        for _ in range(options.pauses):
            job.wait_phase("Training")
            step = job.wait_step(step + 1)
            # A pause comes at no particular moment of the five seconds between two posts.
            time.sleep(chance.uniform(0, 5))
            measured.append(measure(job))
            step = int(job.status["pause"]["step"])
            job.scale(1)
    rows = []
    for part in PARTS:
        values = [pause[part] for pause in measured]
        rows.append((part, spread(values), f"{percentile(values, 0.9):.2f}"))
    show(f"Latency of {options.pauses} pauses, seconds", ("", "min / median / max", "p90"), rows, notes=[before, machine()])


if __name__ == "__main__":
    main()

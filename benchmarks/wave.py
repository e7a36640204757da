"""A wave of jobs: N FineTuneJobs created at once, nothing schedulable: how fast do child Jobs appear.

Side by side in one run: bare Jobs of the same shape are created first, by the same client, as what the API server itself allows. The
operator under test is the one installed in the cluster.
"""

from __future__ import annotations

import argparse
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from kubernetes import client, config, watch

from benchmarks.environment import kubeconfig
from benchmarks.report import percentile, show
from finetune_api.constants import GROUP, LABEL_JOB, PLURAL, VERSION
from tests.support.jobs import make_job
from tests.support.platform import SYSTEM_NAMESPACE, Kubectl

NAMESPACE = "bench-wave"
NOWHERE = {"finetune.dev/benchmark": "nowhere"}


class Appearances:
    """When each Job was first seen, by the job it belongs to."""

    def __init__(self) -> None:
        self.seen: dict[str, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        api, events = client.BatchV1Api(), watch.Watch()
        while not self._stop.is_set():
            for event in events.stream(api.list_namespaced_job, NAMESPACE, timeout_seconds=5, _preload_content=False):
                job = event["raw_object"]
                self.seen.setdefault(job["metadata"].get("labels", {}).get(LABEL_JOB, job["metadata"]["name"]), time.monotonic())
                if self._stop.is_set():
                    return

    def wait(self, count: int, deadline: float) -> None:
        """Until ``count`` Jobs were seen."""
        while len(self.seen) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(self.seen)} of {count} child Jobs appeared")
            time.sleep(0.05)


def bare_job(name: str) -> dict[str, Any]:
    """A Job as the operator would make it, without anything around it."""
    container = {"name": "trainer", "image": "none", "args": ["train"]}
    template = {
        "metadata": {"labels": {LABEL_JOB: name}},
        "spec": {"restartPolicy": "Never", "nodeSelector": NOWHERE, "containers": [container]},
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {LABEL_JOB: name}},
        "spec": {"template": template, "backoffLimit": 0},
    }


def create_all(names: list[str], create: Any) -> dict[str, float]:
    """Create objects from 8 threads; name -> when the API server had it."""

    def one(name: str) -> tuple[str, float]:
        create(name)
        return name, time.monotonic()

    with ThreadPoolExecutor(8) as pool:
        return dict(pool.map(one, names))


def operator_memory(kubectl: Kubectl) -> float:
    """Resident memory of the operator in MiB."""
    with kubectl.within(SYSTEM_NAMESPACE).port_forward("deployment/finetune-operator", 8080) as port:
        text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
    value = next(line.split()[1] for line in text.splitlines() if line.startswith("process_resident_memory_bytes "))
    return float(value) / 2**20


def wave(kubectl: Kubectl, jobs: int) -> list[tuple[str, ...]]:
    """Rows for bare Jobs and for FineTuneJobs."""
    batch, custom = client.BatchV1Api(), client.CustomObjectsApi()
    kubectl.run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=true")
    kubectl("create", "namespace", NAMESPACE)
    spec = {"resources": {"nodeSelector": NOWHERE}}
    shapes = {
        "bare Jobs": ("bare", lambda name: batch.create_namespaced_job(NAMESPACE, bare_job(name))),
        "FineTuneJobs": (
            "wave",
            lambda name: custom.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, make_job(name, spec)),
        ),
    }
    rows = []
    rates = []
    for title, (prefix, create) in shapes.items():
        names = [f"{prefix}-{number}" for number in range(jobs)]
        with Appearances() as appearances:
            began = time.monotonic()
            created = create_all(names, create)
            appearances.wait(jobs, time.monotonic() + 600)
        delays = [appearances.seen[name] - created[name] for name in names]
        rates.append(jobs / (max(appearances.seen.values()) - began))
        rows.append(
            (f"{jobs} {title}", f"{rates[-1]:.1f}", f"{max(0.0, percentile(delays, 0.5)):.2f}", f"{max(0.0, percentile(delays, 0.99)):.2f}")
        )
        kubectl.within(NAMESPACE).run("delete", "finetunejobs,jobs", "--all", "--wait=true")
    rows.append(("ratio", f"{rates[1] / rates[0]:.2f}", "", ""))
    kubectl.run("delete", "namespace", NAMESPACE, "--wait=false")
    return rows


def main() -> None:
    """Measure waves of 500 and 1,000 jobs, or of --jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="*", default=[500, 1000])
    arguments = parser.parse_args()
    path = kubeconfig()
    config.load_kube_config(str(path))
    kubectl = Kubectl(path)
    rows = [row for jobs in arguments.jobs for row in wave(kubectl, jobs)]
    rows.append(("operator memory, MiB", f"{operator_memory(kubectl):.0f}", "", ""))
    show("Created at once, nothing schedulable (creation to child Job)", ("", "Jobs/s", "p50 s", "p99 s"), rows)


if __name__ == "__main__":
    main()

"""A wave of jobs: N FineTuneJobs created at once, nothing schedulable: how fast do child Jobs appear.

Side by side in one run: bare Jobs of the same shape are created first, by the same client, as what the API server itself allows. The
operator under test is the one installed in the cluster. The bars are twice the figures of Kubeflow Trainer v2.3 with JobSet, measured
on a machine of this size (two cores).
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from kubernetes import client, watch

from benchmarks.environment import connect, namespace, operator_metrics, scrape
from benchmarks.report import Verdict, machine, percentile, show
from finetune_api.constants import GROUP, LABEL_JOB, PLURAL, VERSION
from tests.support.jobs import make_job
from tests.support.platform import Kubectl

NAMESPACE = "bench-wave"
NOWHERE = {"finetune.dev/benchmark": "nowhere"}
PATIENCE_SECONDS = 600.0
THREADS = 8


class Kubeflow(NamedTuple):
    """What Kubeflow Trainer v2.3 with JobSet does on two cores."""

    jobs_per_second: float
    p50: float
    p99: float


KUBEFLOW = {500: Kubeflow(31.6, 6.5, 14.1), 1000: Kubeflow(29.7, 16.5, 30.6)}
FACTOR = 2.0


@dataclass(frozen=True)
class Wave:
    """How one wave went."""

    jobs: int
    rate: float
    """Jobs per second, from the first creation to the last appearance."""
    p50: float
    """Seconds from the answer to a creation until the Job was seen."""
    p99: float

    def row(self, title: str) -> tuple[str, ...]:
        """For the table."""
        return (f"{self.jobs} {title}", f"{self.rate:.1f}", f"{self.p50:.2f}", f"{self.p99:.2f}")

    def verdict(self) -> str:
        """Against twice what Kubeflow does, where that is known for this size."""
        peer = KUBEFLOW.get(self.jobs)
        if peer is None:
            return ""
        checks = {
            "rate": Verdict(self.rate, FACTOR * peer.jobs_per_second, at_least=True),
            "p50": Verdict(self.p50, peer.p50 / FACTOR),
            "p99": Verdict(self.p99, peer.p99 / FACTOR),
        }
        return ", ".join(f"{name} {check.text}" for name, check in checks.items())


class Appearances:
    """When each Job was first seen, by the job it belongs to."""

    def __init__(self, namespace: str) -> None:
        self.seen: dict[str, float] = {}
        self._namespace = namespace
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        # As custom objects, which the client hands over as they came: parsing into its classes would cost the wave a core.
        api, events = client.CustomObjectsApi(), watch.Watch()
        while not self._stop.is_set():
            for event in events.stream(api.list_namespaced_custom_object, "batch", "v1", self._namespace, "jobs", timeout_seconds=5):
                metadata = event["object"]["metadata"]
                self.seen.setdefault(metadata["labels"][LABEL_JOB], time.monotonic())
                if self._stop.is_set():
                    return

    def wait(self, count: int) -> None:
        """Until ``count`` Jobs were seen."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.seen) < count:
            if time.monotonic() > deadline:
                raise SystemExit(f"only {len(self.seen)} of {count} child Jobs appeared within {PATIENCE_SECONDS:.0f} s")
            time.sleep(0.05)


def bare_job(name: str) -> dict[str, Any]:
    """A Job as the operator would make it, without anything around it."""
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {"name": "trainer", "image": "none", "args": ["train"], "securityContext": security}
    template = {
        "metadata": {"labels": {LABEL_JOB: name}},
        "spec": {
            "restartPolicy": "Never",
            "nodeSelector": NOWHERE,
            "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
        },
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {LABEL_JOB: name}},
        "spec": {"template": template, "backoffLimit": 0},
    }


def measure(kubectl: Kubectl, prefix: str, jobs: int, create: Callable[[str, str], object]) -> Wave:
    """Create jobs in a namespace of their own from several threads and wait until each has its Job."""
    with namespace(kubectl, f"{NAMESPACE}-{prefix}") as inside, Appearances(inside.namespace) as appearances:

        def one(name: str) -> tuple[str, float]:
            create(inside.namespace, name)
            return name, time.monotonic()

        began = time.monotonic()
        with ThreadPoolExecutor(THREADS) as pool:
            created = dict(pool.map(one, [f"{prefix}-{number}" for number in range(jobs)]))
        appearances.wait(jobs)
        delays = [max(0.0, appearances.seen[name] - at) for name, at in created.items()]
        rate = jobs / (max(appearances.seen.values()) - began)
    return Wave(jobs, rate, percentile(delays, 0.5), percentile(delays, 0.99))


def create_bare(namespace: str, name: str) -> object:
    """Create a bare Job."""
    return client.CustomObjectsApi().create_namespaced_custom_object("batch", "v1", namespace, "jobs", bare_job(name))


def create_finetune(namespace: str, name: str) -> object:
    """Create a FineTuneJob that no node can take."""
    document = make_job(name, {"resources": {"nodeSelector": NOWHERE}})
    return client.CustomObjectsApi().create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, document)


def main() -> None:
    """Measure waves of 500 and 1,000 jobs, or of --jobs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, nargs="*", default=[500, 1000])
    options = parser.parse_args()
    kubectl, before = connect(), machine()
    rows: list[tuple[str, ...]] = []
    with operator_metrics(kubectl) as metrics:
        for jobs in options.jobs:
            cpu = scrape(metrics)[("process_cpu_seconds_total",)]
            bare = measure(kubectl, "bare", jobs, create_bare)
            ours = measure(kubectl, "finetune", jobs, create_finetune)
            after = scrape(metrics)
            memory = f"{after[('process_resident_memory_bytes',)] / 1e6:.0f}"
            rows += [
                (*bare.row("bare Jobs"), "", "", ""),
                (*ours.row("FineTuneJobs"), memory, f"{after[('process_cpu_seconds_total',)] - cpu:.1f}", ours.verdict()),
                ("ratio", f"{ours.rate / bare.rate:.2f}", "", "", "", "", ""),
            ]
    header = ("", "Jobs/s", "p50 s", "p99 s", "operator MB", "operator CPU s", f"bar: {FACTOR:g} x Kubeflow Trainer")
    show("Created at once, nothing schedulable (creation to child Job)", header, rows, notes=[before, machine()])


if __name__ == "__main__":
    main()

"""The operator's memory with many jobs: suspended ones, made as fast as the API server takes them, each judged and brought to rest.

Measured as they come, at rest, and in a fresh process that has listed them all and looked at each that is not settled.
"""

from __future__ import annotations

import argparse
import time

from benchmarks.environment import OPERATOR, connect, create_jobs, namespace, operator_metrics, operator_pod, scrape
from benchmarks.report import Verdict, machine, show
from finetune_api.contract import metrics as names
from tests.support.platform import SYSTEM_NAMESPACE

NAMESPACE = "bench-memory"
BAR_MB = 400.0
CHUNK = 1000
PATIENCE_SECONDS = 1800.0
REST_SECONDS = 30.0


def settle(url: str, jobs: int) -> dict[tuple[str, ...], float]:
    """Wait until the operator knows all jobs and has nothing to do; returns its metrics then."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        found = scrape(url)
        if found.get((names.JOBS_KNOWN,), 0) >= jobs and found.get((names.QUEUE_DEPTH,), 1) == 0:
            return found
        if time.monotonic() > deadline:
            raise SystemExit(f"the operator has not come to rest with {jobs} jobs within {PATIENCE_SECONDS:.0f} s")
        time.sleep(1)


def row(title: str, found: dict[tuple[str, ...], float], cores: str = "") -> tuple[str, ...]:
    """A row of the table."""
    megabytes = found[("process_resident_memory_bytes",)] / 1e6
    return (title, f"{megabytes:.0f}", cores, Verdict(megabytes, BAR_MB).text)


def at_rest(url: str, title: str, jobs: int) -> tuple[str, ...]:
    """Memory at rest, and the processor time it takes to keep it."""
    before, began = settle(url, jobs), time.monotonic()
    time.sleep(REST_SECONDS)
    after = scrape(url)
    key = ("process_cpu_seconds_total",)
    return row(title, after, f"{(after[key] - before[key]) / (time.monotonic() - began):.3f}")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000, help="default: %(default)s")
    options = parser.parse_args()
    kubectl, before = connect(), machine()
    rows: list[tuple[str, ...]] = []
    with namespace(kubectl, NAMESPACE) as inside:
        with operator_metrics(kubectl) as url:
            rows.append(row("no jobs", scrape(url)))
            for first in range(0, options.jobs, CHUNK):
                made = min(first + CHUNK, options.jobs)
                create_jobs(inside.namespace, [f"rest-{number}" for number in range(first, made)], {"suspend": True})
                print(f"{made} jobs: {scrape(url)[('process_resident_memory_bytes',)] / 1e6:.0f} MB", flush=True)
            rows.append(at_rest(url, f"{options.jobs} jobs", options.jobs))
        kubectl.within(SYSTEM_NAMESPACE)("delete", "pod", operator_pod().metadata.name)
        kubectl.within(SYSTEM_NAMESPACE)("rollout", "status", f"deployment/{OPERATOR}", "--timeout=240s")
        with operator_metrics(kubectl) as url:
            rows.append(at_rest(url, f"{options.jobs} jobs, fresh process", options.jobs))
        header = ("", "operator MB", "cores at rest", f"bar: below {BAR_MB:.0f} MB")
        show("The operator's memory", header, rows, notes=[before, machine()])


if __name__ == "__main__":
    main()

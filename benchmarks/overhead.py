"""Training under the supervisor against the same plain TRL script: seconds per optimizer step, uploads in flight on our side.

Waits for saves are not part of a step (see :mod:`benchmarks.checkpoint`); all else is: agreement of the ranks, per-step records, reports,
progress posts, metrics, and the uploads that go on beside training, with MinIO on the same cores. The CPU time of rank 0's process per
step is shown too: unlike the clock it does not depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks.report import Verdict, machine, pairs, show
from benchmarks.sides import Bench, Measured, local_bench
from benchmarks.workload import Workload, write_inputs

BAR = 1.01
WARM_UP_STEPS = 5
MIN_STEP_SECONDS = 0.2


def step_seconds(measured: Measured) -> float:
    """Mean duration of a step once warm: a mean, because an upload slows some steps only."""
    return statistics.fmean(measured.steps[WARM_UP_STEPS:])


def median_seconds(measured: Measured) -> float:
    """Median duration of a step once warm."""
    return statistics.median(measured.steps[WARM_UP_STEPS:])


def compare(bench: Bench, workload: Workload, repeats: int) -> tuple[str, ...]:
    """Run both sides alternately; returns a row of the table."""
    ours: list[Measured] = []
    plain: list[Measured] = []
    for _ in range(repeats):
        ours.append(bench.supervised(workload))
        plain.append(bench.plain(workload, save=False))
    if {run.trainable for run in ours} != {run.trainable for run in plain}:
        raise SystemExit(f"{workload.name}: the sides do not train the same parameters")
    means = pairs([step_seconds(run) for run in ours], [step_seconds(run) for run in plain])
    medians = pairs([median_seconds(run) for run in ours], [median_seconds(run) for run in plain])
    cpu = pairs([statistics.fmean(run.cpu) for run in ours], [statistics.fmean(run.cpu[WARM_UP_STEPS:]) for run in plain])
    uploads = [size for run in ours for size in run.checkpoint_bytes]
    too_short = " (steps too short for the bar)" if means.base < MIN_STEP_SECONDS else ""
    return (
        workload.name,
        f"{1000 * means.ours:.1f}",
        f"{1000 * means.base:.1f}",
        means.text,
        medians.text,
        cpu.text,
        f"{len(uploads) / repeats:.0f} x {max(uploads) / 1e6:.1f} MB",
        Verdict(means.ratio, BAR).text + too_short,
    )


def main() -> None:
    """Measure one and two ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps of a run (default: %(default)s)")
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2])
    options = parser.parse_args()
    before = machine()
    with local_bench() as (bench, directory):
        inputs = write_inputs(Path(directory) / "inputs")
        workloads = [Workload(inputs, ranks=ranks, steps=options.steps) for ranks in options.ranks]
        rows = [compare(bench, workload, options.repeats) for workload in workloads]
    header = (
        "",
        "ours ms/step",
        "plain ms/step",
        "ratio of means",
        "ratio of medians",
        "ratio of CPU time",
        "uploads per run",
        f"bar {BAR}",
    )
    show("Step time under the supervisor against a plain TRL script (1 thread per rank)", header, rows, notes=[before, machine()])


if __name__ == "__main__":
    main()

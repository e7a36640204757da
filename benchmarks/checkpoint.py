"""How long training waits for a checkpoint, against Trainer's own synchronous save followed by an upload of the same files.

Both sides start the clock when the step ends and stop it when training goes on. Ours is the mean over a run's saves as the trainer
accounts for it (``usage.checkpointing``); the other side's is measured around its save and its upload to the same MinIO. The save of the
last step counts on neither side: there is no training left that could wait.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from benchmarks.report import Verdict, machine, pairs, show
from benchmarks.sides import Bench, Measured, local_bench
from benchmarks.workload import Workload, write_inputs

BAR = 0.10


def compare(bench: Bench, workload: Workload, repeats: int) -> tuple[str, ...]:
    """Run both sides alternately; returns a row of the table."""
    ours: list[Measured] = []
    plain: list[Measured] = []
    for _ in range(repeats):
        ours.append(bench.supervised(workload))
        plain.append(bench.plain(workload, save=True))
    stalls = pairs(
        [statistics.fmean(run.stalls) for run in ours],
        [statistics.fmean(run.stalls[: workload.steps // workload.save_every]) for run in plain],
    )
    size = max(size for run in ours for size in run.checkpoint_bytes)
    return (
        workload.name,
        f"{size / 1e6:.1f}",
        f"{1000 * stalls.ours:.0f}",
        f"{1000 * stalls.base:.0f}",
        stalls.text,
        Verdict(stalls.ratio, BAR).text,
    )


def main() -> None:
    """Measure a LoRA adapter and full fine-tuning, and two ranks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each side (default: %(default)s)")
    parser.add_argument(
        "--steps", type=int, default=55, help="optimizer steps of a run, a save every 10 and one at the end (default: %(default)s)"
    )
    options = parser.parse_args()
    before = machine()
    with local_bench() as (bench, directory):
        inputs = write_inputs(Path(directory) / "inputs")
        workloads = [
            Workload(inputs, adapter="lora", steps=options.steps),
            Workload(inputs, adapter="full", steps=options.steps),
            Workload(inputs, adapter="full", ranks=2, steps=options.steps),
        ]
        rows = [compare(bench, workload, options.repeats) for workload in workloads]
    header = ("", "MB", "ours ms", "save + upload ms", "ratio", f"bar {BAR}")
    show("Time training waits for one checkpoint", header, rows, notes=[before, machine()])


if __name__ == "__main__":
    main()

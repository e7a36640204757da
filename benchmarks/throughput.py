"""Tokens per second, model FLOPs utilization and peak memory: standard, standard packed, optimized, and a plain TRL script, side by side.

All sides train the same model, adapter and rows of natural length with the same batch size and longest sequence, which is what memory
allows. Tokens are those of the rows: padding is work, not result. A side that had to go without a part of the optimized backend is marked.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.report import machine, show
from benchmarks.sides import Bench, Measured, local_bench
from benchmarks.workload import Workload
from examples.tiny_model import write_model
from finetune_trainer.worker.gpu import flops_per_token, peak_flops

WARM_UP_STEPS = 3
ROWS = 2000


def write_rows(directory: Path, model: Path | None) -> Path:
    """Write single turns, short and long, and a model: the small one with random weights unless another is given."""
    if model is None:
        write_model(directory / "model", params="small")
    else:
        shutil.copytree(model, directory / "model")
    source = Path(__file__).parents[1] / "examples/data/kubernetes-sft.jsonl"
    turns = [turn["content"] for line in source.read_text().splitlines() for turn in json.loads(line)["messages"]]
    rows = (" ".join(turns[(at * 7 + part) % len(turns)] for part in range(1 + at % 5)) for at in range(ROWS))
    (directory / "train.jsonl").write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    return directory


def tokens_per_second(measured: Measured) -> float:
    """Over all steps once warm."""
    return sum(measured.tokens[WARM_UP_STEPS:]) / sum(measured.steps[WARM_UP_STEPS:])


def measure(bench: Bench, workload: Workload, repeats: int) -> list[tuple[str, list[Measured]]]:
    """Run all sides in turn, so that slow drifts of the machine meet all of them."""
    sides: dict[str, Callable[[], Measured]] = {
        "plain TRL script": lambda: bench.plain(workload, save=False),
        "standard": lambda: bench.supervised(workload),
        "standard, packed": lambda: bench.supervised(replace(workload, packing=True)),
        "optimized": lambda: bench.supervised(replace(workload, backend="optimized")),
    }
    runs: dict[str, list[Measured]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, run in sides.items():
            runs[name].append(run())
    return list(runs.items())


def rows_of(runs: list[tuple[str, list[Measured]]], device: str | None) -> list[tuple[str, ...]]:
    """One row for each side; ``device``: the GPU's name."""
    plain = runs[0][1]
    base = [tokens_per_second(run) for run in plain]
    peak = peak_flops(device) if device is not None else None
    flops = flops_per_token(plain[0].trainable, plain[0].parameters)
    rows: list[tuple[str, ...]] = []
    for name, measured in runs:
        if {run.trainable for run in measured} != {plain[0].trainable}:
            raise SystemExit(f"{name}: the sides do not train the same parameters")
        speeds = [tokens_per_second(run) for run in measured]
        ratios = [speed / other for speed, other in zip(speeds, base, strict=True)]
        speed = statistics.median(speeds)
        rows.append(
            (
                name,
                f"{speed:.0f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                f"{flops * speed / peak:.1%}" if peak else "-",
                f"{max(run.peak_bytes for run in measured) / 2**20:.0f}",
                f"without {measured[-1].missing}" if measured[-1].missing else "",
            )
        )
    return rows


def main() -> None:
    """Measure on the GPU where there is one, else on the CPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, help="directory of a model (default: 8 million random parameters)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps of a run (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--length", type=int, default=256, help="longest sequence in tokens (default: %(default)s)")
    parser.add_argument("--adapter", choices=("lora", "full"), default="lora")
    options = parser.parse_args()
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    before = machine()
    with local_bench() as (bench, directory):
        workload = Workload(
            write_rows(directory / "inputs", options.model),
            adapter=options.adapter,
            steps=options.steps,
            save_every=options.steps + 1,
            batch_size=options.batch_size,
            accumulation=1,
            length=options.length,
            device="gpu" if device else "cpu",
        )
        rows = rows_of(measure(bench, workload, options.repeats), device)
    header = ("", "tokens/s", "against plain TRL", "MFU", f"peak MiB, {'GPU' if device else 'process'}", "fell back")
    show(f"Throughput on {device or 'CPU, 1 thread'}", header, rows, notes=[before, machine()])


if __name__ == "__main__":
    main()

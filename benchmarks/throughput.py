"""Tokens per second, model FLOPs utilization and peak memory: standard, standard packed, optimized, and a plain TRL script, side by side.

All sides train the same model, adapter and rows of natural length with the same batch size and longest sequence, which is what memory
allows. Tokens are those of the rows: padding is work, not result. A side that had to go without a part of the optimized backend is marked.
The peak that MFU is a share of is the GPU's by its data sheet, for other devices the fastest matrix product measured before the runs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from benchmarks.report import machine, show
from benchmarks.shapes import NAMES, write_shape
from benchmarks.sides import Bench, Measured, local_bench
from benchmarks.workload import Workload
from finetune_trainer.worker.gpu import flops_per_token, peak_flops

WARM_UP_STEPS = 3
ROWS = 2000
MATRIX = {"cpu": 1024, "cuda": 8192}
"""Rows and columns of the matrices that a device's peak is measured with."""
PRODUCTS = 10


@dataclass(frozen=True)
class Peak:
    """Most FLOPs per second of the device, in the number format of the training."""

    flops: float
    source: str
    """Where the figure is from."""


def find_peak(gpu: str | None, threads: int) -> Peak:
    """The GPU's peak by its name; measured where the name is not known, and on CPU with as many threads as the training has."""
    known = peak_flops(gpu) if gpu is not None else None
    if known is not None:
        return Peak(known, f"{known / 1e12:.0f} TFLOP/s, 16 bits, of the data sheet of {gpu}")
    if gpu is not None:
        flops = measured_peak("cuda", torch.bfloat16)
        return Peak(flops, f"{flops / 1e12:.0f} TFLOP/s, measured with bfloat16 matrices on {gpu}")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    flops = measured_peak("cpu", torch.float32)
    torch.set_num_threads(before)
    return Peak(flops, f"{flops / 1e9:.0f} GFLOP/s, measured with float32 matrices on {threads} thread{'s' if threads > 1 else ''}")


def measured_peak(device: str, dtype: torch.dtype) -> float:
    """FLOPs per second of the fastest of a few square matrix products; on CPU by processor time, which other programs take none of."""
    size = MATRIX[device]
    clock = process_seconds if device == "cpu" else time.monotonic
    left, right = (torch.rand(size, size, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(PRODUCTS):
        start = clock()
        product = left @ right
        product[0, 0].item()  # a GPU is done when the value is here
        seconds.append(clock() - start)
    return 2 * size**3 / min(seconds)


def process_seconds() -> float:
    """Seconds that each of torch's threads has computed."""
    return time.process_time() / torch.get_num_threads()


def write_rows(directory: Path, shape: str, model: Path | None) -> Path:
    """Write single turns, short and long, and a model: of a shape with random weights unless a directory is given."""
    if model is None:
        write_shape(directory / "model", shape, "cuda" if torch.cuda.is_available() else "cpu")
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


def rows_of(runs: list[tuple[str, list[Measured]]], peak: Peak) -> list[tuple[str, ...]]:
    """One row for each side, the plain script's first.

    Raises SystemExit when the sides do not train the same parameters, or have no figure for their memory.
    """
    plain = runs[0][1]
    base = [tokens_per_second(run) for run in plain]
    flops = flops_per_token(plain[0].trainable, plain[0].parameters)
    rows: list[tuple[str, ...]] = []
    for name, measured in runs:
        if {run.trainable for run in measured} != {plain[0].trainable}:
            raise SystemExit(f"{name}: the sides do not train the same parameters")
        if not all(run.peak_bytes for run in measured):
            raise SystemExit(f"{name}: its memory was not read; take more --steps")
        speeds = [tokens_per_second(run) for run in measured]
        ratios = [speed / other for speed, other in zip(speeds, base, strict=True)]
        speed = statistics.median(speeds)
        rows.append(
            (
                name,
                f"{speed:.0f}",
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})",
                f"{flops * speed / peak.flops:.1%}",
                f"{max(run.peak_bytes for run in measured) / 2**20:.0f}",
                f"yes: without {measured[-1].missing}" if measured[-1].missing else "",
            )
        )
    return rows


def main() -> None:
    """Measure on the GPU where there is one, else on the CPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--shape",
        choices=NAMES,
        default="small",
        help="random weights: test 0.2, small 8 million parameters; 1b, 8b as Llama-3.2-1B, Llama-3.1-8B (default: %(default)s)",
    )
    parser.add_argument("--model", type=Path, help="directory of a model, instead of a shape")
    parser.add_argument("--repeats", type=int, default=2, help="runs of each side (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=15, help=f"optimizer steps of a run, above {WARM_UP_STEPS} (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--length", type=int, default=256, help="longest sequence in tokens (default: %(default)s)")
    parser.add_argument("--adapter", choices=("lora", "full"), default="lora")
    options = parser.parse_args()
    if options.steps <= WARM_UP_STEPS + 1:
        parser.error(f"argument --steps: {options.steps} leaves nothing to measure; use {WARM_UP_STEPS + 2} or more")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    before = machine()
    with local_bench() as (bench, directory):
        workload = Workload(
            write_rows(directory / "inputs", options.shape, options.model),
            adapter=options.adapter,
            steps=options.steps,
            save_every=options.steps + 1,
            batch_size=options.batch_size,
            accumulation=1,
            length=options.length,
            device="gpu" if gpu else "cpu",
        )
        peak = find_peak(gpu, workload.threads)
        rows = rows_of(measure(bench, workload, options.repeats), peak)
    header = ("", "tokens/s", "against plain TRL", "MFU", f"peak MiB, {'GPU' if gpu else 'process'}", "fell back")
    title = f"Throughput of {options.model or options.shape}, {options.adapter}, on {gpu or f'CPU, {workload.threads} thread'}"
    show(title, header, rows, notes=[f"MFU: of {peak.source}", before, machine()])


if __name__ == "__main__":
    main()

"""The memory estimate of preflight against the measured peak of rank 0, for a few adapters, strategies and numbers of tokens.

On a GPU the peak is what torch had allocated at most, of which the CUDA context is no part. On CPU it is the process's own memory (without
mapped files) after the first step, less that of the same program with a model of 0.2 million parameters and one short row.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.report import machine, show
from benchmarks.sides import Bench, Measured, local_bench
from benchmarks.workload import Workload
from examples.tiny_model import write_model
from finetune_api.resolve import resolve
from finetune_api.strategies import STRATEGIES, effective_strategy
from finetune_trainer.estimate.memory import CONTEXT_BYTES, Footprint, Plan, estimate_memory
from finetune_trainer.estimate.shape import adapter_parameters, adapter_shape, read_shape
from finetune_trainer.sources.model_directory import local_files
from tests.support.jobs import merge

MIB = 2**20
STEPS = 6


@dataclass(frozen=True)
class Case(Workload):
    """A training whose memory is estimated and measured."""

    strategy: str = "auto"
    checkpointing: bool = False
    quantization: str = "none"

    def spec(self) -> dict[str, Any]:
        """The spec of a FineTuneJob."""
        own = {
            "training": {"gradientCheckpointing": self.checkpointing},
            "distributed": {"strategy": self.strategy},
            "quantization": {"mode": self.quantization},
            "precision": {"dtype": "float32" if self.device == "cpu" else "bfloat16"},
        }
        return merge(super().spec(), own)

    @property
    def title(self) -> str:
        """For the table."""
        base = ", 4-bit base" if self.quantization == "4bit" else ""
        checkpointing = ", checkpointing" if self.checkpointing else ""
        return f"{self.name}, {self.strategy}{base}{checkpointing}, {self.batch_size} x {self.length} tokens"


def write_inputs(directory: Path, *, hidden: int, layers: int) -> Path:
    """Write a model with random weights, with the tokenizer of the small one, and rows longer than any sequence of a case."""
    model = directory / "model"
    write_model(model, params="small")
    words = json.loads((model / "config.json").read_text())["vocab_size"]
    for file in model.glob("*.safetensors*"):
        file.unlink()
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 64,
        vocab_size=words,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(model)
    rows = (json.dumps({"text": f"row {row}: " + "pods and nodes and volumes " * 1500}) + "\n" for row in range(32))
    (directory / "train.jsonl").write_text("".join(rows))
    return directory


def estimated(case: Case) -> Footprint:
    """What preflight's formula says of one rank, without what the CUDA context takes."""
    spec, shape = resolve(case.spec()).spec, read_shape(local_files(case.inputs / "model"))
    assert shape is not None, "the model was written with headers"
    trainable = adapter_parameters(shape, adapter_shape(spec.adapter, None)) if case.adapter == "lora" else shape.parameters
    strategy = effective_strategy(case.strategy, None, case.ranks)
    plan = Plan(trainable, case.quantization == "4bit", case.device == "gpu", strategy, case.ranks)
    found = estimate_memory(spec, shape, plan, longest_row=case.length)
    return replace(found, overhead=found.overhead - CONTEXT_BYTES)


def cases(inputs: Path, device: str, ranks: int, length: int) -> list[Case]:
    """Both adapters with and without checkpointing, two lengths, a base in 4 bits; on several ranks each strategy."""
    first = Case(inputs, steps=STEPS, save_every=STEPS, batch_size=2, accumulation=2, length=length)
    first = replace(first, device="gpu" if device == "gpu" else "cpu", ranks=ranks)
    if ranks > 1:
        return [replace(first, adapter="full", strategy=name) for name in STRATEGIES if name != "none" and not name.endswith("_offload")]
    return [
        first,
        replace(first, checkpointing=True),
        replace(first, length=2 * length),
        replace(first, quantization="4bit"),
        replace(first, adapter="full"),
        replace(first, adapter="full", checkpointing=True),
    ]


def measure(bench: Bench, chosen: Sequence[Case], small: Path) -> list[tuple[str, ...]]:
    """A row for each case."""
    on_gpu = chosen[0].device == "gpu"
    least = replace(chosen[0], inputs=small, batch_size=1, accumulation=1, length=128)
    base = 0 if on_gpu else bench.supervised(least).anonymous_bytes
    rows: list[tuple[str, ...]] = []
    for case in chosen:
        found: Measured = bench.supervised(case)
        peak = (found.peak_bytes if on_gpu else found.anonymous_bytes) - base
        terms = estimated(case)
        told = ", ".join(f"{name} {size / MIB:.0f}" for name, size in terms.terms().items() if size)
        print(f"{case.title}: estimate {terms.total / MIB:.0f}, measured {peak / MIB:.0f} MiB", flush=True)
        rows.append((case.title, f"{terms.total / MIB:.0f}", f"{peak / MIB:.0f}", f"{terms.total / peak:.2f}", told))
    return rows


def main() -> None:
    """Measure on the GPU where there is one, else on the CPU."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=2048 if on_gpu else 512, help="width of the model (default: %(default)s)")
    parser.add_argument("--layers", type=int, default=16 if on_gpu else 8, help="default: %(default)s")
    parser.add_argument("--length", type=int, default=1024 if on_gpu else 256, help="longest sequence in tokens (default: %(default)s)")
    parser.add_argument("--ranks", type=int, default=1, help="above 1: all strategies without offload (default: %(default)s)")
    options = parser.parse_args()
    before = machine()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = "65536"  # what is freed goes back at once and is not measured
    with local_bench() as (bench, directory):
        inputs = write_inputs(directory / "inputs", hidden=options.hidden, layers=options.layers)
        small = directory / "small" / "inputs"
        write_model(small / "model", params="test")
        (small / "train.jsonl").write_bytes((inputs / "train.jsonl").read_bytes())
        rows = measure(bench, cases(inputs, "gpu" if on_gpu else "cpu", options.ranks, options.length), small)
    header = ("", "estimate MiB", f"measured MiB, {'GPU' if on_gpu else 'process'}", "ratio", "terms of the estimate, MiB")
    device = torch.cuda.get_device_name() if on_gpu else "CPU"
    show(f"Memory of rank 0 on {device}, {options.layers} layers of width {options.hidden}", header, rows, notes=[before, machine()])


if __name__ == "__main__":
    main()

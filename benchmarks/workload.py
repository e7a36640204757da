"""One training that both sides of a benchmark run: the same model, rows, batch, adapter and threads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from examples.tiny_model import write_model
from tests.support.jobs import merge

LEARNING_RATE = 1e-3
LORA_RANK = 16
SEED = 42
ROWS = 256


@dataclass(frozen=True)
class Workload:
    """A training whose rows are cut to ``length`` tokens; those of :func:`write_inputs` are longer, so that its steps are equal work."""

    inputs: Path
    """Directory with ``model/`` and ``train.jsonl``, see :func:`write_inputs`."""
    adapter: Literal["lora", "full"] = "lora"
    ranks: int = 1
    threads: int = 1
    """Threads of each rank."""
    steps: int = 60
    save_every: int = 10
    """Steps between checkpoints."""
    batch_size: int = 2
    accumulation: int = 2
    length: int = 128
    device: Literal["cpu", "gpu"] = "cpu"
    backend: Literal["standard", "optimized"] = "standard"
    packing: bool | None = None
    """None: the backend's own."""

    @property
    def name(self) -> str:
        """For the tables."""
        return f"{self.adapter}, {self.ranks} rank{'s' if self.ranks > 1 else ''}"

    def spec(self) -> dict[str, Any]:
        """The spec of a FineTuneJob."""
        adapter: dict[str, Any] = {"type": self.adapter}
        lora = {"rank": LORA_RANK, "alpha": LORA_RANK, "targetModules": ["all-linear"]}
        dataset: dict[str, Any] = {"uri": "pvc://inputs/train.jsonl", "format": "text", "numWorkers": 0}
        return {
            "model": {"uri": "pvc://inputs/model"},
            "dataset": dataset if self.packing is None else {**dataset, "packing": self.packing},
            "adapter": merge(adapter, lora) if self.adapter == "lora" else adapter,
            "training": {
                "batchSize": self.batch_size,
                "gradAccumSteps": self.accumulation,
                "maxSeqLength": self.length,
                "learningRate": LEARNING_RATE,
                "lrScheduler": "constant",
                "optimizer": "adamw_torch",
                "maxSteps": self.steps,
                "seed": SEED,
                "gradientCheckpointing": False,
                "backend": self.backend,
            },
            "resources": {"device": self.device, "processesPerReplica": self.ranks},
            "checkpoint": {"steps": self.save_every, "keepLast": 2},
            "logging": {"steps": 5},
        }

    def plain_arguments(self, out: Path) -> list[str]:
        """Arguments of :mod:`benchmarks.plain_trl`."""
        values = {
            "model": self.inputs / "model",
            "data": self.inputs / "train.jsonl",
            "out": out,
            "adapter": self.adapter,
            "lora-rank": LORA_RANK,
            "steps": self.steps,
            "batch-size": self.batch_size,
            "accumulation": self.accumulation,
            "length": self.length,
            "learning-rate": LEARNING_RATE,
            "seed": SEED,
            "device": self.device,
        }
        return [part for name, value in values.items() for part in (f"--{name}", str(value))]


def write_inputs(directory: Path) -> Path:
    """Write the 8-million-parameter model and rows long enough to be cut, so that all steps cost the same."""
    write_model(directory / "model", params="small")
    source = Path(__file__).parents[1] / "examples/data/kubernetes-sft.jsonl"
    turns = [turn["content"] for line in source.read_text().splitlines() for turn in json.loads(line)["messages"]]
    with (directory / "train.jsonl").open("w") as file:
        for row in range(ROWS):
            start = row * 7 % len(turns)
            words = " ".join((turns[start:] + turns[:start])[:60])
            file.write(json.dumps({"text": words}) + "\n")
    return directory

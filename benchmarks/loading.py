"""Main memory that the processes of one pod take while they load a model and share it out, in copies of its weights.

Counted is the proportional set size (PSS) of both ranks together: pages that they share, as they do those of the file they map, count once.
What the same takes with a model of no size is taken off. Without a GPU what belongs onto it lies in main memory too: a whole copy per rank
for ddp, zero1 and zero2 where the weights cannot be used as they lie in the file, and 1/n per rank for the others.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from benchmarks.report import machine, show
from examples.tiny_model import write_model
from finetune_api.strategies import STRATEGIES, Strategy
from finetune_trainer.protocol import Phase, WorkerMessage
from tests.exactness.harness import Attempt, Run, Zygote

RANKS: Final = 2
SAMPLE_SECONDS: Final = 0.02
SIZES: Final = {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12, "vocab_size": 4096}
STORED: Final = {"as stored": "float32", "converted": "bfloat16"}
"""Format the weights are loaded in; the files are float32."""


def proportional_bytes(pid: int) -> int:
    """Memory of a process, what it shares with others divided among them; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


@dataclass
class Meter:
    """Watches the processes of one attempt from their start until all of them train."""

    peak: int = 0
    """Most bytes since the last one began to load."""
    _loading: set[int] = field(default_factory=set)
    _training: set[int] = field(default_factory=set)
    _done: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def hook(self, attempt: Attempt, rank: int, message: WorkerMessage) -> None:
        """Follow the phases of the ranks; ends the run when loading has."""
        if not isinstance(message, Phase):
            return
        if message.phase == "Loading" and rank not in self._loading:
            self._loading.add(rank)
            if len(self._loading) == RANKS:
                self._thread = threading.Thread(target=self._watch, args=(attempt.pids,))
                self._thread.start()
        elif message.phase == "Training" and rank not in self._training:
            self._training.add(rank)
            if len(self._training) == RANKS:
                self.close()
                attempt.stop()

    def close(self) -> None:
        """Stop watching."""
        self._done.set()
        if self._thread is not None:
            self._thread.join()

    def _watch(self, pids: list[int]) -> None:
        while not self._done.wait(SAMPLE_SECONDS):
            self.peak = max(self.peak, sum(map(proportional_bytes, pids)))


def write_inputs(directory: Path) -> tuple[Path, int]:
    """Write a model of about 100 million random float32 parameters with the tokenizer of the tiny one; returns it and its parameters."""
    write_model(directory, params="small")
    own = json.loads((directory / "config.json").read_text())
    config = LlamaConfig(**{name: own[name] for name in ("pad_token_id", "bos_token_id", "eos_token_id") if name in own}, **SIZES)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    (directory / "model.safetensors").unlink()
    model.save_pretrained(directory)
    return directory, model.num_parameters()


def measure(run: Run) -> int:
    """Start both ranks, let them load, stop them; returns the peak in bytes."""
    meter = Meter()
    result = run.attempt(RANKS, hook=meter.hook, seconds=600)
    meter.close()
    if meter.peak == 0 or set(result.codes) - {0, 75}:
        raise SystemExit(f"the ranks ended with {result.codes}:\n{result.log[-4000:]}")
    return meter.peak


def main() -> None:
    """Measure every strategy, adapter and format that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--strategy", nargs="*", choices=STRATEGIES, default=[name for name in STRATEGIES if name != "none"])
    parser.add_argument("--adapter", nargs="*", choices=("lora", "full"), default=["lora"])
    options = parser.parse_args()
    before = machine()
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory(prefix="finetune-bench-") as name:
        directory = Path(name)
        model, parameters = write_inputs(directory / "model")
        tiny = directory / "tiny"
        write_model(tiny, params="test")
        zygote = Zygote(directory / "zygote.log", hidden=("wandb", "bitsandbytes"))
        prepared: Path | None = None
        try:
            for strategy in options.strategy:
                for adapter in options.adapter:
                    place = directory / f"{strategy}-{adapter}"
                    control = Run(zygote, place / "tiny", tiny, spec_of(strategy, adapter, "float32"), prepared)
                    prepared = control.prepared
                    without, cells = measure(control), [strategy, adapter]
                    for dtype in STORED.values():
                        taken = measure(Run(zygote, place / dtype, model, spec_of(strategy, adapter, dtype), prepared)) - without
                        copy = parameters * torch.finfo(getattr(torch, dtype)).bits // 8
                        cells += [f"{taken / 1e6:.0f}", f"{taken / copy:.2f}"]
                    print(*cells, flush=True)
                    rows.append(tuple(cells))
        finally:
            zygote.close()
    titles = [title for how in STORED for title in (f"{how}, MB", "copies")]
    note = f"{parameters / 1e6:.0f} million parameters in float32 files, {RANKS} ranks of one pod on {os.uname().sysname}, no GPU"
    show("Main memory to load a model", ("strategy", "adapter", *titles), rows, notes=[note, before, machine()])


def spec_of(strategy: Strategy, adapter: str, dtype: str) -> dict[str, Any]:
    """A job of two ranks that loads the model; steps are small, for the first has begun before the ranks are told to stop."""
    return {
        "training": {"batchSize": 1, "gradAccumSteps": 1, "gradientCheckpointing": True},
        "adapter": {"type": adapter} if adapter == "full" else {"rank": 8, "targetModules": ["q_proj", "v_proj"]},
        "precision": {"dtype": dtype},
        "distributed": {"strategy": strategy},
        "resources": {"device": "cpu", "memoryProbe": False},
    }


if __name__ == "__main__":
    main()

"""What plain TRL makes of the same rows and trains on them: the yardstick of test_plain_trl.py, run in a process of its own.

Reads jobs as a JSON list from the file in ``JOBS``, writes ``[{"rows": [...], "losses": [...], "norms": [...]}, ...]`` to that in ``OUT``.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from datasets import Dataset, load_dataset
from torch.utils.data import Sampler, SequentialSampler
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer


class InOrder(SFTTrainer):  # type: ignore[misc]  # trl is not typed
    """The stock trainer on rows in their given order, so that both sides see the same batches."""

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)


def train(options: dict[str, Any]) -> dict[str, Any]:
    """Prepare and train as the TRL quick start does."""
    model = options["model"]
    with tempfile.TemporaryDirectory() as scratch:
        dataset = load_dataset("json", data_files=options["data"], split="train", cache_dir=scratch)
        args = SFTConfig(
            output_dir=scratch,
            max_length=128,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            max_steps=options["steps"] or 1,
            learning_rate=1e-3,
            lr_scheduler_type="linear",
            warmup_steps=0,
            weight_decay=0.01,
            optim="adamw_torch",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            use_cpu=True,
            bf16=False,
            activation_checkpointing=False,
            seed=42,
        )
        trainer = InOrder(model=model, args=args, train_dataset=dataset, processing_class=AutoTokenizer.from_pretrained(model))
        rows = [{name: row[name] for name in ("input_ids", "labels")} for row in trainer.train_dataset]
        result: dict[str, Any] = {"rows": rows}
        if options["steps"]:
            trainer.train_dataset = trainer.train_dataset.select(options["order"])
            trainer.train()
            history = [entry for entry in trainer.state.log_history if "loss" in entry]
            result |= {"losses": [entry["loss"] for entry in history], "norms": [entry["grad_norm"] for entry in history]}
        return result


def main() -> int:
    """Do all jobs."""
    jobs = json.loads(Path(os.environ["JOBS"]).read_text())
    Path(os.environ["OUT"]).write_text(json.dumps([train(options) for options in jobs]))
    return 0

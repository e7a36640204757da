"""The plain script a user would write with TRL: what the trainer image is compared with. Nothing of this project is imported.

With ``--save-every`` it saves as Trainer does; with ``--bucket`` it also uploads each checkpoint with the minio SDK before it goes on.
It writes the seconds between the ends of its steps, and what training waited for each save, as JSON to ``--out``/measured.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from datasets import load_dataset
from minio import Minio
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainerState, TrainingArguments
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Notes when steps end, and how long after the end of its step a save (and its upload) is done."""

    def __init__(self, upload: Any) -> None:
        self.ends: list[float] = []
        self.cpu: list[float] = []
        """CPU time of this process at the end of each step."""
        self.tokens: list[int] = []
        """Tokens seen at the end of each step, padding not counted."""
        self.stalls: list[float] = []
        self._upload = upload

    def on_step_end(self, _args: TrainingArguments, state: TrainerState, *_more: Any, **_: Any) -> None:
        """A step has ended."""
        self.tokens.append(int(state.num_input_tokens_seen))
        self.ends.append(time.monotonic())
        self.cpu.append(time.process_time())

    def on_save(self, args: TrainingArguments, state: TrainerState, *_args: Any, **_: Any) -> None:
        """The Trainer has saved."""
        if state.is_world_process_zero and self._upload is not None:
            self._upload(Path(args.output_dir) / f"checkpoint-{state.global_step}")
        self.stalls.append(time.monotonic() - self.ends[-1])


def main() -> None:
    """Train."""
    options = parse()
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32 if options.device == "cpu" else torch.bfloat16)
    lora = LoraConfig(r=options.lora_rank, lora_alpha=options.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM")
    clock = Clock(uploader(options.bucket) if options.bucket else None)
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(options.out),
            per_device_train_batch_size=options.batch_size,
            gradient_accumulation_steps=options.accumulation,
            max_steps=options.steps,
            max_length=options.length,
            learning_rate=options.learning_rate,
            lr_scheduler_type="constant",
            optim="adamw_torch",
            seed=options.seed,
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=options.device == "cpu",
            logging_steps=5,
            include_num_input_tokens_seen="non_padding",
            save_strategy="steps" if options.save_every else "no",
            save_steps=options.save_every or 500,
            save_total_limit=2,
            disable_tqdm=True,
            report_to="none",
            ddp_find_unused_parameters=False,
        ),
        train_dataset=load_dataset("json", data_files=str(options.data), split="train"),
        processing_class=tokenizer,
        peft_config=lora if options.adapter == "lora" else None,
        callbacks=[clock],
    )
    trainer.train()
    if trainer.is_world_process_zero():
        steps, cpu = ([end - start for start, end in pairwise(marks)] for marks in (clock.ends, clock.cpu))
        trainable = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
        measured = {
            "steps": steps,
            "stalls": clock.stalls,
            "cpu": cpu,
            "trainable": trainable,
            "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
            "tokens": [end - start for start, end in pairwise(clock.tokens)],
            "peak_bytes": peak_bytes(options.device),
        }
        (options.out / "measured.json").write_text(json.dumps(measured))


def peak_bytes(device: str) -> int:
    """Return the most memory in use at once: of the GPU, else of this process."""
    if device == "gpu":
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def uploader(bucket: str) -> Any:
    """Return a function that uploads a directory to ``s3://bucket/prefix`` file by file, with the credentials of the environment."""
    parts, endpoint = urlsplit(bucket), urlsplit(os.environ["AWS_ENDPOINT_URL"])
    client = Minio(
        endpoint.netloc,
        access_key=os.environ["AWS_ACCESS_KEY_ID"],
        secret_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        secure=endpoint.scheme == "https",
        region="us-east-1",
    )

    def upload(directory: Path) -> None:
        for file in sorted(directory.iterdir()):
            client.fput_object(parts.netloc, f"{parts.path.strip('/')}/{directory.name}/{file.name}", str(file))

    return upload


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("model", "data", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("lora-rank", "steps", "batch-size", "accumulation", "length", "seed"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--learning-rate", type=float, required=True)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--adapter", choices=("lora", "full"), required=True)
    parser.add_argument("--save-every", type=int, default=0, help="steps between saves, 0: none")
    parser.add_argument("--bucket", default="", help="s3://bucket/prefix to upload each checkpoint to; empty: none")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Checkpoints that others wrote: plain Trainer directories without our manifest.

Complete means: every file of the list for its kind is there (AC-07, AC-08).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from finetune_api.contract.failures import FailureClass
from finetune_trainer.sources.context import Source, source_error

STATE = "trainer_state.json"
COMMON = ("optimizer.pt", "scheduler.pt", STATE, "training_args.bin")
REQUIRED: dict[str, tuple[str, ...]] = {
    "lora": ("adapter_config.json", "adapter_model.safetensors", *COMMON),
    "full": ("config.json", *COMMON),
}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def check_plain_checkpoint(source: Source, directory: Path, *, kind: Literal["lora", "full"], world_size: int) -> None:
    """Raise TrainerError (CheckpointIncomplete) that names the first missing file, or the reason why it does not fit this job."""
    names = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}
    _check_kind(source, names, kind)
    missing = missing_files(directory, names, kind)
    if missing:
        raise source_error(
            source, f"the checkpoint is incomplete, {missing[0]} is missing (a {kind} checkpoint needs {', '.join(REQUIRED[kind])})."
        )
    _check_rng(source, names, world_size)
    try:
        plain_step(directory)
    except (ValueError, KeyError, TypeError) as error:
        raise source_error(source, f"{STATE} cannot be read: {error!r}.") from error


def missing_files(directory: Path, names: Collection[str], kind: Literal["lora", "full"]) -> list[str]:
    """Files a checkpoint of a kind lacks, shards named by its index included."""
    missing = [name for name in REQUIRED[kind] if name not in names]
    if kind == "full" and WEIGHTS not in names:
        if INDEX not in names:
            missing.append(WEIGHTS)
        else:
            shards = set(json.loads((directory / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
            missing += sorted(shards - set(names))
    return missing


def plain_step(directory: Path) -> int:
    """Step of a plain checkpoint, from its trainer_state.json."""
    return int(json.loads((directory / STATE).read_text(encoding="utf-8"))["global_step"])


def _check_kind(source: Source, names: Collection[str], kind: str) -> None:
    if "latest" in names or any(re.match(r"global_step\d+/", name) for name in names):
        raise source_error(source, "is a DeepSpeed checkpoint; this job's distributed.strategy cannot read it.")
    if any(name.startswith(("pytorch_model_fsdp", "optimizer_0/")) for name in names):
        raise source_error(source, "is an FSDP checkpoint; this job's distributed.strategy cannot read it.")
    found = "lora" if "adapter_config.json" in names or "adapter_model.safetensors" in names else "full"
    if found != kind and (found == "lora" or WEIGHTS in names or INDEX in names):
        raise source_error(source, f"is a {found} checkpoint, adapter.type is {kind}.")


def _check_rng(source: Source, names: Collection[str], world_size: int) -> None:
    """A missing random state is an error, not a log line: the resumed run would silently be another one."""
    wanted = ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]
    resized = any(re.fullmatch(r"rng_state(_\d+)?\.pth", name) for name in names)
    missing = [name for name in wanted if name not in names]
    if missing and not resized:
        raise source_error(source, f"the checkpoint is incomplete, {missing[0]} is missing.", FailureClass.CHECKPOINT_INCOMPLETE)

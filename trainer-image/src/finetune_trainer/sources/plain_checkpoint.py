"""Checkpoints that others wrote: plain Trainer directories without our manifest.

Complete means: every file of the list for its kind is there (AC-07, AC-08).
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal, NamedTuple

from finetune_api.contract.failures import FailureClass
from finetune_api.strategies import REPLICATED, Strategy
from finetune_trainer.sources.context import Source, source_error

STATE = "trainer_state.json"
OPTIMIZER = "optimizer.pt"
COMMON = (OPTIMIZER, "scheduler.pt", STATE, "training_args.bin")
REQUIRED: dict[str, tuple[str, ...]] = {
    "lora": ("adapter_config.json", "adapter_model.safetensors", *COMMON),
    "full": ("config.json", *COMMON),
}
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


class PlainJob(NamedTuple):
    """What a job needs of a checkpoint."""

    kind: Literal["lora", "full"]
    world_size: int
    strategy: Strategy | None = None
    """None while that is not decided (``auto``)."""


def check_plain_checkpoint(source: Source, directory: Path, *, job: PlainJob) -> None:
    """Raise TrainerError (CheckpointIncomplete) that names the first missing file, or the reason why it does not fit this job."""
    names, kind = {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}, job.kind
    _check_layout(source, names, job.strategy)
    _check_kind(source, names, kind)
    missing = missing_files(directory, names, kind)
    if missing:
        raise source_error(
            source, f"the checkpoint is incomplete, {missing[0]} is missing (a {kind} checkpoint needs {', '.join(REQUIRED[kind])})."
        )
    _check_rng(source, names, job.world_size)
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


def _check_layout(source: Source, names: Collection[str], strategy: Strategy | None) -> None:
    """Optimizers in parts are read with our manifest alone: how many ranks wrote them, and as what, is in no other file."""
    found = None
    if "latest" in names or any(re.match(r"global_step\d+/", name) for name in names):
        found = "a DeepSpeed"
    elif any(name.startswith(("pytorch_model_fsdp", "optimizer_0/")) for name in names):
        found = "an FSDP"
    if found is not None:
        raise source_error(
            source,
            f"is {found} checkpoint without manifest.json; of checkpoints that other programs wrote, those with a whole optimizer "
            f"({OPTIMIZER}) can be resumed. Name the model it holds in model.uri to start from its weights.",
        )
    if strategy is not None and strategy not in REPLICATED:
        raise source_error(
            source,
            f"has a whole optimizer ({OPTIMIZER}), which distributed.strategy {strategy} cannot read; set it to ddp.",
        )


def _check_kind(source: Source, names: Collection[str], kind: str) -> None:
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

"""The part of preflight that says how long a checkpoint takes to be complete: its size, and how fast the store takes files."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from finetune_api.contract.preflight import CheckpointFacts
from finetune_api.contract.run_config import RunConfig
from finetune_api.strategies import REPLICATED
from finetune_trainer.store.base import Store
from finetune_trainer.store.probe import measure_upload
from finetune_trainer.verbs.findings import Findings

DISK_BYTES_PER_SECOND: Final = 500e6
"""Assumed of the disk of a node with GPUs; preflight runs elsewhere."""


def check_upload(config: RunConfig, store: Store, directory: Path, found: Findings) -> dict[str, str]:
    """Put the time a checkpoint takes into ``found``, measured with a few MB; ``directory`` holds them meanwhile.

    Nothing is said of models whose checkpoints' size is not known. Pods write their shares at the same time where state is split.
    """
    if found.verdict is None:
        return {}
    size = found.verdict.checkpoint
    share = size if found.verdict.strategy in REPLICATED else size // config.topology.replicas
    speed = measure_upload(store, directory)
    found.checkpoint = CheckpointFacts(
        size_bytes=size,
        upload_bytes_per_second=round(speed),
        save_seconds=round(share / DISK_BYTES_PER_SECOND, 1),
        upload_seconds=round(share / speed, 1),
    )
    return {}

"""A worker whose libraries train whole copies where they were told to shard them, as accelerate does on CPUs by itself."""

from __future__ import annotations

from finetune_trainer.worker.__main__ import main as work
from finetune_trainer.worker.strategies.fsdp import FullySharded


def main() -> int:
    """Run a worker."""
    FullySharded.before_trainer = lambda _self: None  # type: ignore[assignment, method-assign]  # what has accelerate shard
    return work()

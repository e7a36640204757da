"""How ranks share model, gradients and optimizer. Each strategy is one module; what they have in common is :mod:`.base`."""

from __future__ import annotations

from finetune_api.strategies import Strategy as StrategyName
from finetune_trainer.worker.strategies.base import Sharing

__all__ = ["Sharing", "sharing_of"]


def sharing_of(name: StrategyName) -> Sharing:
    """Return what a strategy does; its libraries are imported only here."""
    match name:
        case "none" | "ddp":
            return Sharing(name)
        case "fsdp":
            from finetune_trainer.worker.strategies.fsdp import FullySharded

            return FullySharded(name)
        case "zero1" | "zero2" | "zero2_offload" | "zero3" | "zero3_offload":
            from finetune_trainer.worker.strategies.zero import Zero

            return Zero(name)

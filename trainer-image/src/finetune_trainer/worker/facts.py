"""What a run turned out to be: for people, and for later attempts to find again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from finetune_api.contract.store import Pinned
from finetune_trainer.worker.precision import Formats
from finetune_trainer.worker.sight import trained_parts
from finetune_trainer.worker.strategies.base import Sharing

if TYPE_CHECKING:
    from finetune_trainer.worker.session import Session
    from finetune_trainer.worker.trainer import FineTuneTrainer


def parameter_counts(model: torch.nn.Module, sharing: Sharing) -> tuple[int, int]:
    """Return (trainable, all) parameters over all ranks; a tensor shared by several modules counts once."""
    parameters = list(model.parameters())
    return sum(sharing.parameter_count(p) for p in parameters if p.requires_grad), sum(sharing.parameter_count(p) for p in parameters)


def facts(session: Session, trainer: FineTuneTrainer, formats: Formats) -> dict[str, str]:
    """Return what status shows beside the spec."""
    trainable, total = parameter_counts(trainer.model, session.sharing)
    known: dict[str, object] = {
        "dtype": formats.dtype,
        "autocast": formats.autocast,
        "quantization": quantization(formats),
        "strategy": session.sharing.name,
        "trainableParameters": trainable,
        "totalParameters": total,
        "effectiveBatchSize": session.schedule.global_batch,
        "totalSteps": session.schedule.total_steps,
        "stepsPerEpoch": session.schedule.steps_per_epoch,
        "warmupSteps": session.schedule.warmup_steps,
        "stopBy": session.schedule.stop_by,
        "outputUse": "best" if session.keeps_best else "last",
        "modelType": session.model_type,
        "trainableComponents": trained_parts(trainer.model),
    }
    adapter = getattr(trainer.model, "peft_config", {}).get("default")
    if adapter is not None:
        known |= {
            "scaling": f"{adapter.lora_alpha / adapter.r:g}",
            "targetModules": ",".join(sorted({name.rpartition(".")[2] for name in trainer.model.targeted_module_names})),
        }
    if session.backend is not None:
        known |= session.backend.facts()
    return {name: str(value) for name, value in known.items()}


def quantization(formats: Formats) -> str:
    """How the base model is held."""
    return "4bit" if formats.is_quantized else "none"


def pinned(session: Session, formats: Formats) -> Pinned:
    """Return what this attempt adds to the facts frozen by the first one."""
    return session.plan.pinned.model_copy(
        update={
            "dtype": formats.dtype,
            "strategy": session.sharing.name,
            "quantization": quantization(formats),
            "global_batch": session.schedule.global_batch,
        }
    )

"""What a run turned out to be: for people, and for later attempts to find again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from finetune_api.contract.store import Pinned
from finetune_trainer.errors import configuration_error
from finetune_trainer.protocol import Facts
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


def check_shares(session: Session, model: torch.nn.Module) -> None:
    """See whether the ranks share the weights as the strategy says they do, and report the largest share. Collective.

    Libraries that fall back to whole copies say nothing: the model would only need more memory than was asked for.

    Raises :class:`TrainerError` (ConfigurationError) where a trained parameter is whole.
    """
    sharing, ranks = session.sharing, session.rank.world_size
    if not sharing.shards_weights:
        return
    whole = [name for name, p in model.named_parameters() if p.requires_grad and not sharing.is_split(p, ranks)]
    if whole:
        raise configuration_error(
            f"distributed.strategy: {sharing.name} has left {len(whole)} trained parameters whole instead of splitting them over "
            f"{ranks} ranks, {whole[0]} among them; use another strategy"
        )
    held = sum(sharing.local_part(p).numel() for p in model.parameters())
    largest = int(session.group.gather(torch.tensor([held], dtype=torch.float64)).max())
    if session.rank.is_first:
        session.link.send(Facts(facts={"parametersPerRank": str(largest)}))


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

"""Method dpo: direct preference optimisation."""

from __future__ import annotations

from typing import Any

from trl import DPOConfig, DPOTrainer

from finetune_trainer.worker.arguments import with_extra_arguments
from finetune_trainer.worker.methods import Request
from finetune_trainer.worker.methods.reference import disables_dropout, load_reference, refuse_adapter_on_head
from finetune_trainer.worker.session import Session
from finetune_trainer.worker.trainer import FineTuneTrainer, settle_reference


class PreferenceTrainer(FineTuneTrainer, DPOTrainer):  # type: ignore[misc]  # trl is not typed
    """Learns which of two answers is better."""


def make_arguments(session: Session, common: dict[str, Any]) -> DPOConfig:
    """Build TRL's arguments; rows arrive tokenised and cut."""
    settings = session.spec.dpo
    assert settings is not None, "a resolved job of method dpo has the block"
    own = common | {
        "max_length": None,
        "beta": settings.beta,
        "loss_type": [settings.loss_type],
        "label_smoothing": settings.label_smoothing,
        "disable_dropout": disables_dropout(session),
    }
    return DPOConfig(**with_extra_arguments(own, session.spec.training.extra_args))


def make_trainer(request: Request) -> FineTuneTrainer:
    """Build the trainer."""
    settings = request.session.spec.dpo
    assert settings is not None, "a resolved job of method dpo has the block"
    refuse_adapter_on_head(request)
    trainer = PreferenceTrainer(
        request.session, request.conductor, request.material, args=request.args, ref_model=load_reference(request, settings.reference_model)
    )
    settle_reference(trainer)
    return trainer

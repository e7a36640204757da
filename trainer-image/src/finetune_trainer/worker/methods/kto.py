"""Method kto: Kahneman-Tversky optimisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from trl import KTOConfig, KTOTrainer

from finetune_trainer.worker.arguments import with_extra_arguments
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.loader import Row
from finetune_trainer.worker.methods import Request
from finetune_trainer.worker.methods.reference import disables_dropout, load_reference, refuse_adapter_on_head
from finetune_trainer.worker.session import Session
from finetune_trainer.worker.trainer import FineTuneTrainer, Material, settle_reference


class VerdictTrainer(FineTuneTrainer, KTOTrainer):  # type: ignore[misc]  # trl is not typed
    """Learns from good and bad answers."""

    data_collator: Any

    def __init__(self, session: Session, conductor: Conductor, material: Material, **options: Any) -> None:
        super().__init__(session, conductor, material, **options)
        collate = self.data_collator
        self.data_collator = lambda rows: collate(with_mismatched_answers(rows))

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Both the answer and the mismatched one are read."""
        return super().floating_point_ops(inputs) + int(self._flops_per_token * inputs["KL_input_ids"].numel())


def with_mismatched_answers(rows: Sequence[Row]) -> list[Row]:
    """Give each prompt of a batch the answer to the one before it, from which the distance to the reference is estimated.

    TRL rotates answers once for all, within batches of the order of the file; here the order is the run's own. As in the KTO paper
    (arXiv 2402.01306, section 4.1), the mismatched answers of a batch are its matched ones, paired otherwise.
    """
    answers = [row["completion_ids"] for row in rows]
    return [{**row, "KL_completion_ids": answers[at - 1]} for at, row in enumerate(rows)]


def make_arguments(session: Session, common: dict[str, Any]) -> KTOConfig:
    """Build TRL's arguments; rows arrive tokenised and cut, only mismatched pairs may be longer than a sequence."""
    spec = session.spec
    assert spec.kto is not None, "a resolved job of method kto has the block"
    own = common | {
        "max_length": spec.training.max_seq_length or None,
        "beta": spec.kto.beta,
        "desirable_weight": spec.kto.desirable_weight,
        "undesirable_weight": spec.kto.undesirable_weight,
        "disable_dropout": disables_dropout(session),
    }
    return KTOConfig(**with_extra_arguments(own, spec.training.extra_args))


def make_trainer(request: Request) -> FineTuneTrainer:
    """Build the trainer."""
    settings = request.session.spec.kto
    assert settings is not None, "a resolved job of method kto has the block"
    refuse_adapter_on_head(request)
    trainer = VerdictTrainer(
        request.session, request.conductor, request.material, args=request.args, ref_model=load_reference(request, settings.reference_model)
    )
    settle_reference(trainer)
    return trainer

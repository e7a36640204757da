"""Method reward: a model that scores an answer with one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from datasets import Dataset
from trl import RewardConfig, RewardTrainer

from finetune_trainer.worker.arguments import with_extra_arguments
from finetune_trainer.worker.loader import Row, Rows
from finetune_trainer.worker.methods import Request
from finetune_trainer.worker.methods.reference import disables_dropout
from finetune_trainer.worker.session import Session
from finetune_trainer.worker.trainer import FineTuneTrainer


class WholeAnswers(Rows):
    """Prepared preferences by index; each answer with its prompt before it, as the model scores it."""

    def __getitems__(self, indices: Any) -> list[Row]:
        return [{name: row["prompt_ids"] + row[name] for name in ("chosen_ids", "rejected_ids")} for row in super().__getitems__(indices)]


class ScoreTrainer(FineTuneTrainer, RewardTrainer):  # type: ignore[misc]  # trl is not typed
    """Learns scores from which of two answers is better."""

    rows_class: Callable[[Dataset], Rows] = WholeAnswers


def make_arguments(session: Session, common: dict[str, Any]) -> RewardConfig:
    """Build TRL's arguments; rows arrive tokenised and cut."""
    settings = session.spec.reward
    assert settings is not None, "a resolved job of method reward has the block"
    own = common | {
        "max_length": None,
        "center_rewards_coefficient": settings.center_rewards_coefficient or None,
        "disable_dropout": disables_dropout(session),
    }
    return RewardConfig(**with_extra_arguments(own, session.spec.training.extra_args))


def make_trainer(request: Request) -> FineTuneTrainer:
    """Build the trainer."""
    return ScoreTrainer(request.session, request.conductor, request.material, args=request.args)

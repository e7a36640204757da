"""What the checks of a preflight find out beside passed or not."""

from __future__ import annotations

from dataclasses import dataclass, field

from finetune_api.contract.preflight import CheckpointFacts, DatasetFacts, EnvironmentFacts, MemoryFacts, TokenFacts, TrainingFacts
from finetune_trainer.estimate.decision import Verdict


@dataclass
class Findings:
    """Facts, each from the check that can know it; a check that failed leaves its own empty."""

    columns: list[str] = field(default_factory=list)
    """Of the first row."""
    environment: EnvironmentFacts | None = None
    token: TokenFacts | None = None
    dataset: DatasetFacts | None = None
    memory: MemoryFacts | None = None
    verdict: Verdict | None = None
    """On the model: None where its files have no headers."""
    training: TrainingFacts | None = None
    checkpoint: CheckpointFacts | None = None

    def result(self) -> dict[str, object]:
        """The facts as they are told."""
        told = {
            "environment": self.environment,
            "token": self.token,
            "dataset": self.dataset,
            "memory": self.memory,
            "training": self.training,
            "checkpoint": self.checkpoint,
        }
        facts = {name: found.model_dump(by_alias=True, exclude_none=True) for name, found in told.items() if found is not None}
        return {**({"columns": self.columns} if self.columns else {}), **facts}

"""What the parts of one worker share."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finetune_api.contract.run_config import RunConfig
from finetune_api.length import Pace
from finetune_api.models.sources import ModelType
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.protocol import Warned, WorkerPlan
from finetune_trainer.worker.backend import Backend
from finetune_trainer.worker.group import Group
from finetune_trainer.worker.heartbeat import Heartbeat
from finetune_trainer.worker.ledger import HIGHEST_REWARD, LOWEST_LOSS, Goal, Ledger
from finetune_trainer.worker.link import Link
from finetune_trainer.worker.order import Order
from finetune_trainer.worker.orders import Orders, StopTrigger
from finetune_trainer.worker.rank import Rank
from finetune_trainer.worker.schedule import Schedule
from finetune_trainer.worker.staging import Staging
from finetune_trainer.worker.strategies.base import Sharing
from finetune_trainer.worker.trackers.feed import Feed
from finetune_trainer.worker.trend import Trend
from finetune_trainer.worker.usage import Stopwatch

if TYPE_CHECKING:
    from finetune_trainer.worker.checkpoint import Save


@dataclass
class Progress:
    """State of the run beside weights and optimizer; all of it is in every checkpoint."""

    window: list[float] = field(default_factory=list)
    """Losses of the steps since the last logged one."""
    tokens_seen: int = 0
    ledger: Ledger = field(default_factory=Ledger)
    evaluation_due: bool = False
    """The evaluation of the current step was skipped because of a stop."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Last known loss, eval_loss, ..."""
    trend: Trend = field(default_factory=Trend)


@dataclass
class Session:
    """One worker from start to end."""

    plan: WorkerPlan
    config: RunConfig
    rank: Rank
    link: Link
    orders: Orders
    stopwatch: Stopwatch
    sharing: Sharing
    group: Group
    schedule: Schedule
    pace: Pace
    order: Order
    progress: Progress
    staging: Staging
    heartbeat: Heartbeat
    last_save: float = field(default_factory=time.monotonic)
    """Rank 0's clock at the last save, for interval saves."""
    last_save_bytes: int = 0
    saving: Save | None = None
    """The checkpoint whose files are being written while the training goes on."""
    stopped: StopTrigger | None = None
    """Set once the group has agreed to stop before the last step."""
    early_stopped: bool = False
    feeds: list[Feed] = field(default_factory=list)
    """Trackers; rank 0 only."""
    backend: Backend | None = None
    """What ``training.backend: optimized`` came to."""
    model_type: ModelType = "LLM"
    """What is trained of the model, known once its config was read."""
    _warnings: dict[str, str] = field(default_factory=dict)

    @property
    def spec(self) -> FineTuneJobSpec:
        """The resolved spec."""
        return self.config.spec

    @property
    def goal(self) -> Goal:
        """What makes one evaluation better than another."""
        return HIGHEST_REWARD if self.spec.method == "grpo" else LOWEST_LOSS

    @property
    def keeps_best(self) -> bool:
        """The final weights are those of the best evaluation, so its checkpoint must be there."""
        use = self.spec.output.use or ("best" if self.spec.early_stopping.patience > 0 else "last")
        return use == "best"

    @property
    def parent_attempt(self) -> int:
        """Attempt that wrote the checkpoint this one started from; this one itself when the checkpoint is from elsewhere."""
        resume = self.plan.resume
        return resume.manifest.attempt if resume is not None and resume.manifest is not None else self.plan.attempt

    def track(self, step: int, values: Mapping[str, float]) -> None:
        """Hand values of a step to the trackers."""
        for feed in self.feeds:
            feed.put(step, values)

    def warn(self, condition: str, message: str) -> None:
        """Raise a warning condition, once for the group; an empty message clears one that was raised."""
        if self.rank.is_first and self._warnings.get(condition, "") != message:
            self._warnings[condition] = message
            self.link.send(Warned(condition=condition, message=message))

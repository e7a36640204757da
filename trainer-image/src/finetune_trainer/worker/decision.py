"""What the group does after a step: a function of what was agreed and of the schedule, so that every rank decides alike."""

from __future__ import annotations

from dataclasses import dataclass

from finetune_api.contract.store import Trigger
from finetune_trainer.worker.orders import Bit, StopTrigger, stop_trigger
from finetune_trainer.worker.schedule import Schedule


@dataclass(frozen=True)
class Decision:
    """What follows a step."""

    stop: StopTrigger | None = None
    save: Trigger | None = None
    evaluate: bool = False
    evaluation_due: bool = False
    """An evaluation belongs here and is left for the resumed run."""
    finish: bool = False


def decide(step: int, agreed: Bit, schedule: Schedule) -> Decision:
    """Decide what follows ``step``.

    A stop at the last step is a finish. A stop before it skips the evaluation: the grace period is for the checkpoint. Where several
    reasons ask for a save, the schedule's names it.
    """
    last = schedule.is_last(step)
    stop = stop_trigger(agreed)
    due = schedule.is_evaluation_due(step)
    if stop is not None and not last:
        return Decision(stop=stop, save=stop, evaluation_due=due)
    asked: Trigger | None = "command" if Bit.SAVE in agreed else "interval" if Bit.INTERVAL in agreed else None
    return Decision(save=schedule.save_due(step) or asked, evaluate=due, finish=last)

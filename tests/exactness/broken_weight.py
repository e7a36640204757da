"""A worker whose last rank finds a trained weight infinite after the update of step ``FINETUNE_TEST_STEP``, whose loss was finite."""

from __future__ import annotations

import math
import os
from typing import Any

import torch
from transformers import TrainerState

from finetune_trainer.worker.__main__ import main as work
from finetune_trainer.worker.conductor import Conductor


def main() -> int:
    """Run a worker with the fault."""
    on_step_end, broken = Conductor.on_step_end, int(os.environ["FINETUNE_TEST_STEP"])
    is_last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1

    def break_weight(self: Conductor, args: Any, state: TrainerState, control: Any, **named: Any) -> None:
        if is_last and state.global_step == broken:
            weight = next(parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad)
            with torch.no_grad():
                weight.view(-1)[0] = math.inf
        on_step_end(self, args, state, control, **named)

    Conductor.on_step_end = break_weight  # type: ignore[assignment,method-assign]
    return work()

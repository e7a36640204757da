"""A worker that trains in float16 with a gradient scaler, as on a GPU without bfloat16: on CPU, where the library has neither.

Autocast, scaling, unscaling and the skipped updates are PyTorch's own. Scales are chosen so that the first steps overflow and later ones
grow it again, every ``GROWTH_STEPS`` steps.
"""

from __future__ import annotations

import torch
from transformers import Trainer

from finetune_trainer.worker.__main__ import main as work

FIRST_SCALE = 2.0**26
GROWTH_STEPS = 3


def main() -> int:
    """Run a worker in float16."""
    create = Trainer.create_accelerator_and_postprocess

    def create_with_scaler(self: Trainer) -> None:
        create(self)
        self.accelerator.state._mixed_precision = "fp16"  # which accelerate refuses on CPU
        self.accelerator.native_amp = True
        self.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=FIRST_SCALE, growth_interval=GROWTH_STEPS)

    Trainer.create_accelerator_and_postprocess = create_with_scaler
    return work()

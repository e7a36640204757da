"""A worker that trains in float16 with a gradient scaler, as on a GPU without bfloat16: on CPU, where the library has neither.

Autocast, scaling, unscaling and the skipped updates are PyTorch's own. Scales are chosen so that the first steps overflow and later ones
grow it again, every ``GROWTH_STEPS`` steps.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Trainer

from finetune_trainer.worker.__main__ import main as work

FIRST_SCALE = 2.0**26
GROWTH_STEPS = 3


class CudaScaler(torch.amp.GradScaler):
    """Refuses what CUDA's kernel refuses; the one for CPUs unscales gradients of any format."""

    def unscale_(self, optimizer: torch.optim.Optimizer) -> None:
        """Unscale float32 gradients."""
        given: set[Any] = {p.grad.dtype for group in optimizer.param_groups for p in group["params"] if p.grad is not None}
        if given - {torch.float32}:
            raise NotImplementedError(f'"_amp_foreach_non_finite_check_and_unscale_cuda" not implemented for {given}')
        super().unscale_(optimizer)


def main() -> int:
    """Run a worker in float16."""
    create = Trainer.create_accelerator_and_postprocess

    def create_with_scaler(self: Trainer) -> None:
        create(self)
        self.accelerator.state._mixed_precision = "fp16"  # which accelerate refuses on CPU
        self.accelerator.native_amp = True
        self.accelerator.scaler = CudaScaler("cpu", init_scale=FIRST_SCALE, growth_interval=GROWTH_STEPS)

    Trainer.create_accelerator_and_postprocess = create_with_scaler
    return work()

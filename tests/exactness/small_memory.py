"""A worker whose model exhausts the device's memory with any batch of more than ``FINETUNE_TEST_TOKENS`` tokens, as a small GPU would."""

from __future__ import annotations

import os
from typing import Any

import torch
from transformers import LlamaModel

from finetune_trainer.worker.__main__ import main as work


def main() -> int:
    """Run a worker with the fault."""
    forward, limit = LlamaModel.forward, int(os.environ["FINETUNE_TEST_TOKENS"])

    def limited(self: LlamaModel, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if torch.is_grad_enabled() and input_ids.numel() > limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate for {input_ids.numel()} tokens")
        return forward(self, input_ids, *args, **kwargs)

    LlamaModel.forward = limited
    return work()

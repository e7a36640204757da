"""8-bit optimizers need bitsandbytes, in a build that knows the device: whether it does is found out before the model is loaded."""

from __future__ import annotations

from typing import Final

import torch

from finetune_api.constants import EIGHT_BIT
from finetune_api.contract.failures import FailureClass
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.precision import Device

ELEMENTS: Final = 8192
"""Of the weight that is stepped: of less than 4096 bitsandbytes keeps the state in 32 bits."""


def check_optimizer(spec: FineTuneJobSpec, device: Device) -> None:
    """Let an 8-bit optimizer take one step over a small weight on the device. Nothing is drawn at random, nothing is kept.

    Raises :class:`TrainerError` (QuantizationUnavailable) when the library is missing, broken, or built for other devices.
    """
    if spec.training.optimizer not in EIGHT_BIT:
        return
    try:
        from bitsandbytes.optim import AdamW8bit

        weight = torch.nn.Parameter(torch.zeros(ELEMENTS, device="cuda" if device.kind == "gpu" else "cpu"))
        weight.grad = torch.zeros_like(weight)
        AdamW8bit([weight]).step()
    except torch.OutOfMemoryError:
        raise
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise TrainerError(
            FailureClass.QUANTIZATION_UNAVAILABLE,
            f"training.optimizer: {spec.training.optimizer} cannot be had here, bitsandbytes is missing or does not know the device "
            f"({device.name}): {reason}; set it to adamw_torch, adafactor or sgd, or use an image that has it",
        ) from error

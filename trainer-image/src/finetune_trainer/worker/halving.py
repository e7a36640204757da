"""An adapter is trained in float32 whatever its base is; beside a base of 16 bits, the result is kept in 16 bits too."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

ADAPTER: Final = "adapter_model.safetensors"
HALVES: Final = (torch.bfloat16, torch.float16)


def halve_adapter(model: torch.nn.Module, directory: Path) -> None:
    """Store the adapter in ``directory`` in the precision of the frozen base: bfloat16 on today's GPUs; float32 beside float32 as it is."""
    file = directory / ADAPTER
    precision = base_precision(model)
    if precision not in HALVES or not file.is_file():
        return
    weights = {name: values.to(precision) if values.dtype is torch.float32 else values for name, values in load_file(file).items()}
    mode = file.stat().st_mode
    save_file(weights, file, metadata={"format": "pt"})
    file.chmod(mode)


def base_precision(model: torch.nn.Module) -> torch.dtype | None:
    """Number format of the frozen weights, by the first that is a floating-point one; quantised bases keep their norms in theirs."""
    return next((weight.dtype for weight in model.parameters() if not weight.requires_grad and weight.is_floating_point()), None)

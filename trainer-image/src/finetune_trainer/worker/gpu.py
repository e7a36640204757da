"""What a GPU does for a training: peak memory, and the share of its peak arithmetic that is used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from finetune_trainer.worker.precision import Device, Formats

PEAK_FLOPS: Final[dict[str, float]] = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "A40": 150e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
    "V100": 125e12,
    "T4": 65e12,
}
"""Dense 16-bit FLOPs per second of a GPU whose name holds the key, from NVIDIA's data sheets. Longer names before shorter ones."""


@dataclass(frozen=True)
class GpuMeter:
    """Reads this rank's GPU; on CPU there is nothing to read."""

    is_gpu: bool
    flops_per_token: float
    peak_flops: float | None
    """Of all ranks' GPUs; None where it is not known."""

    def peak_memory(self) -> int | None:
        """Most bytes this rank had allocated at once; None on CPU."""
        return int(torch.cuda.max_memory_allocated()) if self.is_gpu else None

    def utilization(self, tokens_per_second: float) -> float | None:
        """Model FLOPs utilization, 0-1 (PaLM, appendix B: recomputed activations do not count); None where the peak is not known."""
        return self.flops_per_token * tokens_per_second / self.peak_flops if self.peak_flops else None


def gpu_meter(device: Device, formats: Formats, *, trainable: int, total: int, world_size: int) -> GpuMeter:
    """``trainable``, ``total``: parameters. Peaks are those of 16-bit arithmetic: in float32 the share is not told."""
    is_16_bit = formats.weights != "float32" or formats.autocast != "no"
    peak = peak_flops(device.name) if device.kind == "gpu" and is_16_bit else None
    return GpuMeter(device.kind == "gpu", flops_per_token(trainable, total), peak * world_size if peak else None)


def peak_flops(name: str) -> float | None:
    """Peak of a GPU by its name, for example ``NVIDIA H100 80GB HBM3``."""
    return next((flops for key, flops in PEAK_FLOPS.items() if key in name), None)


def flops_per_token(trainable: int, total: int) -> float:
    """Two FLOPs per parameter forward, two backward through activations, two for the gradient of each trained parameter."""
    return 4.0 * total + 2.0 * trainable

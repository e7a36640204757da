"""The GpuTypes every installation has: memory as nvidia-smi shows it, 16-bit TFLOPS of the data sheets, labels of GPU feature discovery."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

PRODUCT_LABEL: Final = "nvidia.com/gpu.product"
"""Label of nodes by NVIDIA's GPU feature discovery."""


def _entry(description: str, product: str, memory: str, capability: str, tflops: int) -> Mapping[str, Any]:
    return {
        "description": description,
        "memory": memory,
        "computeCapability": capability,
        "tflops": tflops,
        "nodeSelector": {PRODUCT_LABEL: product},
    }


SHIPPED_GPU_TYPES: Final[Mapping[str, Mapping[str, Any]]] = {
    "h200": _entry("NVIDIA H200 SXM, 141 GB", "NVIDIA-H200", "143771Mi", "9.0", 989),
    "h100": _entry("NVIDIA H100 SXM, 80 GB", "NVIDIA-H100-80GB-HBM3", "81559Mi", "9.0", 989),
    "a100-80": _entry("NVIDIA A100 SXM, 80 GB", "NVIDIA-A100-SXM4-80GB", "81920Mi", "8.0", 312),
    "l40s": _entry("NVIDIA L40S, 48 GB", "NVIDIA-L40S", "46068Mi", "8.9", 362),
    "l4": _entry("NVIDIA L4, 24 GB", "NVIDIA-L4", "23034Mi", "8.9", 121),
    "t4": _entry("NVIDIA T4, 16 GB: no bfloat16", "Tesla-T4", "15360Mi", "7.5", 65),
}
"""By name."""

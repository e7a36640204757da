"""How much memory a GPU has: as the job says, else as the driver says."""

from __future__ import annotations

import logging
import subprocess
from typing import Final

from finetune_api.models.spec import Resources
from finetune_api.quantities import number_of

logger = logging.getLogger(__name__)
QUERY: Final = ("nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits")
QUERY_SECONDS: Final = 30.0
MIB: Final = 2**20


def gpu_bytes(resources: Resources) -> int | None:
    """Return the bytes of the smallest GPU in sight; None on CPU, and where neither job nor driver knows."""
    if resources.device == "cpu":
        return None
    return asked_bytes(resources) or driver_bytes()


def asked_bytes(resources: Resources) -> int | None:
    """Return what ``resources.gpuMemory`` says."""
    return int(number_of(resources.gpu_memory)) if resources.gpu_memory is not None else None


def driver_bytes(command: tuple[str, ...] = QUERY) -> int | None:
    """Ask the driver's own tool, which container runtimes put beside the driver."""
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_SECONDS, check=True).stdout  # fixed
        return min(int(line) for line in answer.split()) * MIB
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.warning("the GPU's memory is not known: %s", error)
        return None

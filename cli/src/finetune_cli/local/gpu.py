"""How much memory the GPUs of this machine have, for the preset that goes by it (K-11)."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from typing import Final, Literal

from finetune_api.resolve import Resolution
from finetune_cli.manifest import Document, Presets, resolve_document

_QUERY: Final = ("--query-gpu=memory.total", "--format=csv,noheader,nounits")
_SECONDS: Final = 30.0


def gpu_memory() -> str | None:
    """Memory of the smallest GPU, for example ``24564Mi``; None where nvidia-smi is not there or knows of none."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run([program, *_QUERY], capture_output=True, text=True, check=False, timeout=_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return None
    sizes = [int(line) for line in done.stdout.split() if line.isdigit()] if done.returncode == 0 else []
    return f"{min(sizes)}Mi" if sizes else None


def resolve_here(document: Document, presets: Presets, device: Literal["cpu", "gpu"] | None) -> Resolution:
    """Complete a job's spec for this machine: where a preset asks for the memory of its GPUs, this machine's counts.

    ``device``: in place of the job's. Raises :class:`CliError` as :func:`resolve_document`.
    """
    resolution = resolve_document(document, presets)
    resources = resolution.spec.resources
    is_asked = bool(resolution.notes) and (device or resources.device) == "gpu" and resources.gpu_memory is None
    memory = gpu_memory() if is_asked else None
    if memory is None:
        return resolution
    spec = {**document.spec, "resources": {**(document.spec.get("resources") or {}), "gpuMemory": memory}}
    return resolve_document(replace(document, raw={**document.raw, "spec": spec}), presets)

"""Writing a checkpoint's large files while the training goes on, from copies that the next steps do not change."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import torch
from accelerate.utils import recursively_apply

CGROUP: Final = Path("/sys/fs/cgroup")
WRITING_FACTOR: Final = 2
"""Times the size of what is copied that must be free: safetensors makes a copy of its own while it writes."""


class Copies:
    """Copies, in main memory, of tensors that are about to change. Their memory is used again for the next ones."""

    def __init__(self) -> None:
        self._kept: list[torch.Tensor] = []

    def have_room_for(self, state: Any) -> bool:
        """Whether this pod has the memory to copy and write ``state``."""
        needed = WRITING_FACTOR * sum(tensor.nbytes for tensor in _distinct(state).values())
        return needed <= free_memory() + sum(tensor.nbytes for tensor in self._kept)

    def take(self, state: Any) -> Any:
        """Return the same structure with copies of its tensors; those that are one tensor stay one."""
        originals = _distinct(state)
        kept: dict[tuple[Any, ...], list[torch.Tensor]] = {}
        for tensor in self._kept:
            kept.setdefault(_form(tensor), []).append(tensor)
        copies = {}
        for identity, tensor in originals.items():
            spare = kept.get(_form(tensor))
            copies[identity] = (spare.pop() if spare else torch.empty_like(tensor, device="cpu")).copy_(tensor)
        self._kept = list(copies.values())
        return recursively_apply(lambda tensor: copies[_identity(tensor)], state)


class Writing:
    """Files that are being written."""

    def __init__(self, parts: Iterable[Callable[[], None]]) -> None:
        """Begin all parts, each in a thread of its own."""
        threads = ThreadPoolExecutor(thread_name_prefix="checkpoint")
        self._parts: list[Future[None]] = [threads.submit(part) for part in parts]
        threads.shutdown(wait=False)

    @property
    def has_ended(self) -> bool:
        """Whether :meth:`wait` would return, or raise, at once."""
        return all(part.done() for part in self._parts)

    def wait(self) -> None:
        """Wait for all parts; raises what the first that failed has raised."""
        failures = [part.exception() for part in self._parts]
        for failure in failures:
            if failure is not None:
                raise failure


def free_memory(meminfo: Path = Path("/proc/meminfo"), cgroup: Path = CGROUP) -> int:
    """Bytes this pod can still take: the machine's, or fewer where the pod has a limit (cgroup v2, v1). Cached files count as free."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo.read_text(), re.MULTILINE)
    free = int(found[1]) * 1024 if found else 0
    for limit, used, cached in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        if (cgroup / limit).is_file() and (most := (cgroup / limit).read_text().strip()).isdigit():
            file = cgroup / used
            stat = re.search(rf"^{cached} (\d+)$", (file.parent / "memory.stat").read_text(), re.MULTILINE)
            free = min(free, int(most) - int(file.read_text()) + (int(stat[1]) if stat else 0))
    return free


def _distinct(state: Any) -> dict[tuple[Any, ...], torch.Tensor]:
    found: dict[tuple[Any, ...], torch.Tensor] = {}
    recursively_apply(lambda tensor: found.setdefault(_identity(tensor), tensor), state)
    return found


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), _form(tensor), id(tensor) if tensor.numel() == 0 else 0


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype

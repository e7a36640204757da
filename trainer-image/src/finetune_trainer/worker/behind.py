"""Writing a checkpoint's large files while the training goes on, from copies that the next steps do not change."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any, Final

import torch

CGROUP: Final = Path("/sys/fs/cgroup")
WRITING_FACTOR: Final = 2
"""Times the size of what is copied that must be free: safetensors makes a copy of its own while it writes."""


class Copies:
    """Copies, in main memory, of tensors that are about to change. Their memory is used again for the next ones."""

    def __init__(self) -> None:
        self._kept: list[torch.Tensor] = []

    def take(self, state: Any) -> Any:
        """Return the same structure with copies of its tensors; those that are one tensor stay one.

        None where this pod has not the memory to copy and write them.
        """
        tensors: list[torch.Tensor] = []
        _collect(state, tensors)
        identities = [_identity(tensor) for tensor in tensors]
        distinct = dict(zip(identities, tensors, strict=True))
        needed = WRITING_FACTOR * sum(tensor.nbytes for tensor in distinct.values())
        if needed > free_memory() + sum(tensor.nbytes for tensor in self._kept):
            return None
        kept: dict[tuple[Any, ...], list[torch.Tensor]] = {}
        for tensor in self._kept:
            kept.setdefault(_form(tensor), []).append(tensor)
        copies = {}
        for identity, tensor in distinct.items():
            spare = kept.get(_form(tensor))
            copies[identity] = spare.pop() if spare else torch.empty_like(tensor, device="cpu")
        self._kept = list(copies.values())
        torch._foreach_copy_(self._kept, list(distinct.values()))  # as torch.optim does it: one call, not one a tensor
        return _replace(state, {id(tensor): copies[identity] for tensor, identity in zip(tensors, identities, strict=True)})


class Writing:
    """Files that are written by other threads."""

    def __init__(self, threads: Executor, parts: Sequence[Callable[[], None]]) -> None:
        """``threads`` are used again and again: a new one takes until it runs, which beside one that writes is many milliseconds."""
        self._threads, self._parts = threads, parts
        self._begun: list[Future[None]] = []

    def begin(self) -> None:
        """Begin all parts: the last thing a save does, since from here on they and the caller share one interpreter."""
        self._begun = [self._threads.submit(part) for part in self._parts]

    @property
    def has_ended(self) -> bool:
        """Whether :meth:`wait` would return, or raise, at once."""
        return all(part.done() for part in self._begun)

    def wait(self) -> None:
        """Wait for all parts that were begun; raises what the first that failed has raised."""
        failures = [part.exception() for part in self._begun]
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


def _collect(state: Any, found: list[torch.Tensor]) -> None:
    if isinstance(state, torch.Tensor):
        found.append(state)
    elif isinstance(state, dict):
        for value in state.values():
            _collect(value, found)
    elif isinstance(state, list | tuple):
        for value in state:
            _collect(value, found)


def _replace(state: Any, copies: dict[int, torch.Tensor]) -> Any:
    """The same structure, each tensor replaced by the copy that its ``id`` has."""
    if isinstance(state, torch.Tensor):
        return copies[id(state)]
    if isinstance(state, dict):
        return {name: _replace(value, copies) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_replace(value, copies) for value in state)
    return state


def _identity(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.device, tensor.data_ptr(), _form(tensor), id(tensor) if tensor.numel() == 0 else 0


def _form(tensor: torch.Tensor) -> tuple[Any, ...]:
    return tensor.shape, tensor.stride(), tensor.dtype

"""The ranks as a group: how they find each other, and how they agree on small things beside the training collectives."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import torch
import torch.distributed as dist

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.orders import Bit
from finetune_trainer.worker.rank import TORCHRUN_VARIABLES, Rank

if TYPE_CHECKING:
    from collections.abc import Iterator

LOADING_SECONDS: Final = 1800
"""How long ranks wait for each other to come, and to have loaded; collectives have ``distributed.timeoutSeconds``."""


class Group:
    """Agreement among ranks on a CPU group of its own, so that it can never mix with gradients."""

    def __init__(self, rank: Rank, cpu: dist.ProcessGroup | None, store: Any) -> None:
        self.world_size = rank.world_size
        self._rank, self._cpu, self._store = rank.rank, cpu, store

    @property
    def cpu(self) -> dist.ProcessGroup | None:
        """The group of all ranks on their CPUs."""
        return self._cpu

    def agree(self, bits: Bit = Bit.NONE) -> Bit:
        """Return the bits any rank has set. Also a barrier: no rank leaves before all have come.

        Raises :class:`TrainerError` (PeerLost) when a peer is gone.
        """
        if self._cpu is None:
            return bits
        message = torch.tensor([int(bits)], dtype=torch.int32)
        with peer_errors():
            dist.all_reduce(message, op=dist.ReduceOp.BOR, group=self._cpu)
        return Bit(int(message.item()))

    def gather(self, values: torch.Tensor) -> torch.Tensor:
        """Return the values of all ranks: float64 [n] in, [ranks, n] out, in the order of ranks, so that sums never depend on timing.

        Raises :class:`TrainerError` (PeerLost) when a peer is gone.
        """
        if self._cpu is None:
            return values.unsqueeze(0)
        parts = [torch.empty_like(values) for _ in range(self.world_size)]
        with peer_errors():
            dist.all_gather(parts, values, group=self._cpu)
        return torch.stack(parts)

    def meet(self, event: str) -> None:
        """Wait until all ranks have come to ``event``, however long that takes: loading has no regular pace.

        Raises :class:`TrainerError` (PeerLost) when a peer does not come.
        """
        if self._store is None:
            return
        with peer_errors():
            self._store.set(f"{event}/{self._rank}", "")
            self._store.wait([f"{event}/{peer}" for peer in range(self.world_size)])

    def close(self) -> None:
        """Leave the group; all ranks must have agreed before."""
        if self._cpu is not None:
            dist.destroy_process_group()


def open_group(rank: Rank, device: Literal["cpu", "gpu"], timeout_seconds: int, *, needed: bool) -> Group:
    """Wait until all ranks have come, then connect them: nccl on GPUs, gloo on CPUs.

    One rank wants no group unless its strategy's library does (``needed``), and none of torchrun's variables, which would make accelerate
    open one. Raises :class:`TrainerError` (PeerLost) when a peer does not come.
    """
    if rank.world_size == 1 and not needed:
        for name in TORCHRUN_VARIABLES:
            os.environ.pop(name, None)
        return Group(rank, None, None)
    timeout = timedelta(seconds=timeout_seconds)
    loading = timedelta(seconds=max(LOADING_SECONDS, timeout_seconds))
    with peer_errors():
        store = dist.TCPStore(  # type: ignore[attr-defined]  # public, but not in torch's list of exports
            rank.master_addr, rank.master_port, rank.world_size, is_master=rank.is_first, timeout=loading
        )
        store.set(f"arrived/{rank.rank}", "")
        store.wait([f"arrived/{peer}" for peer in range(rank.world_size)])
        backend = "nccl" if device == "gpu" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank.rank, world_size=rank.world_size, timeout=timeout)
        return Group(rank, dist.new_group(backend="gloo", timeout=timeout), store)


@contextmanager
def peer_errors() -> Iterator[None]:
    """Turn the failure of a collective into PeerLost: this rank is well, another one or the way to it is not."""
    try:
        yield
    except RuntimeError as error:
        raise TrainerError(FailureClass.PEER_LOST, f"a peer went away: {str(error).strip().splitlines()[0][:300]}") from error

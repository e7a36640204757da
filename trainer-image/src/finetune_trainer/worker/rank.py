"""Where a process stands among the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

TORCHRUN_VARIABLES: Final = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Rank:
    """One process of the group, from torchrun's environment."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    master_addr: str
    master_port: int

    @property
    def is_first(self) -> bool:
        """Rank 0 reports for the group."""
        return self.rank == 0

    @property
    def is_first_of_pod(self) -> bool:
        """Local rank 0 hands saves over to its pod's supervisor."""
        return self.local_rank == 0


def read_rank(environment: Mapping[str, str]) -> Rank:
    """Read torchrun's variables."""
    return Rank(
        rank=int(environment["RANK"]),
        local_rank=int(environment["LOCAL_RANK"]),
        world_size=int(environment["WORLD_SIZE"]),
        local_world_size=int(environment["LOCAL_WORLD_SIZE"]),
        master_addr=environment["MASTER_ADDR"],
        master_port=int(environment["MASTER_PORT"]),
    )

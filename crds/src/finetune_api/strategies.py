"""How ranks work together: the names of ``distributed.strategy`` and what each of them implies."""

from __future__ import annotations

from typing import Final, Literal, TypeAlias, get_args

Strategy: TypeAlias = Literal["none", "ddp", "fsdp", "zero1", "zero2", "zero2_offload", "zero3", "zero3_offload"]
STRATEGIES: Final[tuple[Strategy, ...]] = get_args(Strategy)
REPLICATED: Final = frozenset({"none", "ddp"})
"""Every rank has a whole copy of everything."""
ZERO: Final = frozenset(name for name in STRATEGIES if name.startswith("zero"))
"""DeepSpeed ZeRO: optimizer (1), gradients (2) and weights (3) are split over the ranks."""
SHARDS_WEIGHTS: Final = frozenset({"fsdp", "zero3", "zero3_offload"})
"""No rank ever holds the whole model, so that all ranks run every forward pass together."""
FIXED_RANKS: Final = ZERO
"""A checkpoint fits the number of ranks that wrote it alone."""


def effective_strategy(asked: str, pinned: str | None, world_size: int) -> Strategy:
    """Return the strategy a start uses.

    ``pinned`` is what ``auto`` came to when the run began; where nothing was decided yet, ``auto`` keeps whole copies. ddp on one rank
    is none and back: such a run may change its number of ranks.
    """
    wanted = (pinned if pinned in STRATEGIES else "ddp") if asked == "auto" else asked
    if wanted in REPLICATED:
        return "none" if world_size == 1 else "ddp"
    for name in STRATEGIES:
        if name == wanted:
            return name
    raise ValueError(f"distributed.strategy {asked!r} is none of auto, {', '.join(STRATEGIES)}")


def is_quantized(asked: str, pinned: str | None) -> bool:
    """Whether a start holds the base model in 4 bits; ``pinned`` is what ``auto`` came to when the run began."""
    return asked == "4bit" or (asked == "auto" and pinned == "4bit")


def is_same_strategy(before: str, now: str) -> bool:
    """Whether a run may go on with ``now`` after ``before``."""
    return before == now or {before, now} <= REPLICATED

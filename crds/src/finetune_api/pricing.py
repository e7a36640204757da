"""What GPU time costs, in decimal arithmetic: one place for the meter and for what people are told beforehand."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Final, NamedTuple

SECONDS_PER_HOUR: Final = 3600
_SHOWN: Final = Decimal("0.0001")
"""Costs are shown in this part of a currency's unit."""


class Charge(NamedTuple):
    """What was used so far costs."""

    rate_seconds: str
    """Sum of GPU seconds times hourly rate, exact."""
    cost: str
    """A 3600th of it, to four decimals."""


def charge(rate_seconds: str | None, seconds: float, hourly_rate: str) -> Charge:
    """Add GPU seconds, to the tenth that clocks have, at a price per hour to what was charged before (None: nothing)."""
    total = Decimal(rate_seconds or "0") + Decimal(f"{seconds:.1f}") * Decimal(hourly_rate)
    return Charge(f"{total.normalize():f}", f"{(total / SECONDS_PER_HOUR).quantize(_SHOWN, ROUND_HALF_UP):f}")


def hourly_cost(hourly_rate: str, gpus: int) -> str:
    """Price of an hour of so many GPUs."""
    return f"{Decimal(hourly_rate) * gpus:f}"

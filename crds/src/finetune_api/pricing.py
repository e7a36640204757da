"""What GPU time costs, in decimal arithmetic: one place for the meter and for what people are told beforehand (O-04)."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal
from typing import Annotated, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

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
    return Charge(f"{total.normalize():f}", shown(total / SECONDS_PER_HOUR))


class Billing(BaseModel):
    """What estimates are made with beside the price: constants of the installation (chart values ``billing``)."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, extra="forbid")

    overhead_seconds: dict[str, Annotated[int, Field(ge=0, le=86_400)]] = {
        "imagePull": 120,
        "modelLoad": 120,
        "datasetPrep": 120,
        "evaluation": 120,
        "register": 120,
    }
    """Seconds a run's GPUs are held beside its optimizer steps, by what for (O-02)."""
    headroom: Annotated[float, Field(ge=0, le=10)] = 0.30
    """Share added for the upper bound (O-03)."""
    utilization: Annotated[float, Field(gt=0, le=1)] = 0.35
    """Share of a GPU's arithmetic that training uses."""


class CostRange(NamedTuple):
    """What GPU time may cost: exact, to be rounded when shown."""

    low: Decimal
    high: Decimal


def cost_range(training_seconds: float, hourly_rate: str, gpus: int, billing: Billing) -> CostRange:
    """Cost of a run that trains for so many seconds: low if all goes smoothly, high with headroom (O-01, O-03, O-05)."""
    seconds = (Decimal(f"{training_seconds:.1f}") + sum(billing.overhead_seconds.values())) * gpus
    low = cost_of(seconds, hourly_rate)
    return CostRange(low, low * (1 + Decimal(str(billing.headroom))))


def cost_of(gpu_seconds: Decimal, hourly_rate: str) -> Decimal:
    """Exact cost of GPU seconds."""
    return gpu_seconds * Decimal(hourly_rate) / SECONDS_PER_HOUR


def from_rate_seconds(rate_seconds: str | None) -> Decimal:
    """Exact cost of a sum of GPU seconds times hourly rate."""
    return Decimal(rate_seconds or "0") / SECONDS_PER_HOUR


def shown(amount: Decimal) -> str:
    """An amount to four places (OP-21)."""
    return f"{amount.quantize(_SHOWN, ROUND_HALF_UP):f}"


def hourly_cost(hourly_rate: str, gpus: int) -> str:
    """Price of an hour of so many GPUs."""
    return f"{Decimal(hourly_rate) * gpus:f}"

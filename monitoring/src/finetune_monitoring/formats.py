"""Numbers in the units of panels, as Grafana shows them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) and abs(value) < 1e7 else f"{value:.3g}"


def _short(value: float) -> str:
    return _scaled(value, 1000, ("", " K", " Mil", " Bil"))


def _bytes(value: float) -> str:
    return _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"))


def _scaled(value: float, base: float, suffixes: tuple[str, ...]) -> str:
    for suffix in suffixes[:-1]:
        if abs(value) < base:
            return f"{value:.3g}{suffix}"
        value /= base
    return f"{value:.3g}{suffixes[-1]}"


def _duration(value: float) -> str:
    for size, suffix in ((86400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if abs(value) >= size:
            return f"{value / size:.3g} {suffix}"
    return f"{value:.3g} s" if abs(value) >= 1 or value == 0 else f"{value * 1000:.3g} ms"


_UNITS: Mapping[str, Callable[[float], str]] = {
    "none": _plain,
    "short": _short,
    "bytes": _bytes,
    "s": _duration,
    "dtdurations": _duration,
    "percentunit": lambda value: f"{value * 100:.3g}%",
    "sci": lambda value: f"{value:.2e}",
    "ops": lambda value: f"{value:.3g} ops/s",
    "reqps": lambda value: f"{value:.3g} req/s",
}


def shown(value: float, unit: str) -> str:
    """A number in a unit; raises KeyError for a unit no panel has."""
    return _UNITS[unit](value) if math.isfinite(value) else str(value)

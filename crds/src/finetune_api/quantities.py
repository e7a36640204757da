"""Kubernetes quantities as numbers."""

from __future__ import annotations

from typing import Final

_SCALES: Final = {
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}


def number_of(quantity: str) -> float:
    """Return the number a quantity stands for: ``500m`` is 0.5, ``16Gi`` is 17179869184."""
    digits = quantity.rstrip("mkMGTPi")
    return float(digits) * _SCALES.get(quantity[len(digits) :], 1)

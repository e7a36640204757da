"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
PATIENCE_SECONDS = 120.0
"""A bound for what goes wrong: nothing that goes right waits for it, on a busy machine either."""


def eventually(condition: Callable[[], Value], *, what: str, within: float = PATIENCE_SECONDS) -> Value:
    """First truthy value of a condition; fails when there is none in time."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {within} s"
        time.sleep(0.02)
    return value

"""The clocks, handed in wherever time matters: tests move them."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple


class Clocks(NamedTuple):
    """Wall time for what is written, monotonic seconds for what is measured."""

    now: Callable[[], datetime]
    monotonic: Callable[[], float]


def system_clocks() -> Clocks:
    """The machine's."""
    return Clocks(lambda: datetime.now(UTC), time.monotonic)

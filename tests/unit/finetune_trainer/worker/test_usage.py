"""Every second belongs to one use."""

from __future__ import annotations

import pytest

from finetune_api.contract.store import UsageSeconds
from finetune_trainer.worker.usage import Stopwatch


def test_laps_add_up_over_attempts() -> None:
    """From the pod's start, on top of earlier attempts, without a gap."""
    now = [100.0]
    watch = Stopwatch(lambda: now[0], started=90.0, before=UsageSeconds(starting=5, productive=50))
    for use, until in (("starting", 103.0), ("productive", 104.0), ("checkpointing", 104.5), ("productive", 106.0)):
        now[0] = until
        watch.lap(use)
    assert watch.usage == UsageSeconds(starting=18, productive=52.5, checkpointing=0.5)
    assert sum(watch.usage.model_dump().values()) == pytest.approx(55 + 106 - 90)


def test_a_lap_returns_its_seconds() -> None:
    """The step's duration is the lap's."""
    now = [1.0]
    watch = Stopwatch(lambda: now[0], started=1.0, before=UsageSeconds())
    now[0] = 3.5
    assert watch.lap("replayed") == 2.5

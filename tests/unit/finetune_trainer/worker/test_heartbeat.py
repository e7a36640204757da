"""Signs of life are frequent enough to be seen and rare enough to cost nothing."""

from __future__ import annotations

from typing import Any

from finetune_trainer.protocol import Phase
from finetune_trainer.worker.heartbeat import Heartbeat


def test_phases_at_once_counters_each_second() -> None:
    """A change of phase is always sent."""
    sent: list[Any] = []

    class Recording:
        def send(self, message: Any) -> None:
            sent.append(message)

    now = [10.0]
    heartbeat = Heartbeat(Recording(), lambda: now[0])  # type: ignore[arg-type]
    beats = ((10.0, "Training", 0), (10.4, "Training", 1), (10.6, "Saving", 0), (11.0, "Training", 2), (12.1, "Training", 3))
    for moment, phase, counter in beats:
        now[0] = moment
        heartbeat.beat(phase, counter)  # type: ignore[arg-type]
    assert sent == [
        Phase(phase="Training", counter=0),
        Phase(phase="Saving", counter=0),
        Phase(phase="Training", counter=2),
        Phase(phase="Training", counter=3),
    ]

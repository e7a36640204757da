"""Signs of life are frequent enough to be seen and rare enough to cost nothing."""

from __future__ import annotations

from typing import Any

from finetune_trainer.protocol import Phase
from finetune_trainer.worker.heartbeat import Heartbeat


class Recording:
    """A link that keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


def test_a_phase_within_a_phase_ends_with_a_sign() -> None:
    """A hang right after a save is one of training, with training's limit."""
    link = Recording()
    heartbeat = Heartbeat(link, lambda: 10.0)  # type: ignore[arg-type]
    heartbeat.beat("Training", 7)
    with heartbeat.during("Saving"):
        pass
    assert [(beat.phase, beat.counter) for beat in link.sent] == [("Training", 7), ("Saving", 0), ("Training", 7)]


def test_phases_at_once_counters_each_second() -> None:
    """A change of phase is always sent."""
    link = Recording()
    now = [10.0]
    heartbeat = Heartbeat(link, lambda: now[0])  # type: ignore[arg-type]
    beats = ((10.0, "Training", 0), (10.4, "Training", 1), (10.6, "Saving", 0), (11.0, "Training", 2), (12.1, "Training", 3))
    for moment, phase, counter in beats:
        now[0] = moment
        heartbeat.beat(phase, counter)  # type: ignore[arg-type]
    assert link.sent == [
        Phase(phase="Training", counter=0),
        Phase(phase="Saving", counter=0),
        Phase(phase="Training", counter=2),
        Phase(phase="Training", counter=3),
    ]

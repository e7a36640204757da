"""What all ranks decide from what they agreed on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.worker.decision import Decision, decide
from finetune_trainer.worker.orders import Bit
from tests.unit.finetune_trainer.worker.conftest import SCHEDULE


@pytest.mark.parametrize(
    ("step", "agreed", "expected"),
    [
        (1, Bit.NONE, Decision()),
        (5, Bit.NONE, Decision(save="steps")),
        (6, Bit.NONE, Decision(evaluate=True)),
        (7, Bit.SAVE, Decision(save="command")),
        (7, Bit.INTERVAL, Decision(save="interval")),
        (5, Bit.SAVE | Bit.INTERVAL, Decision(save="steps")),
        (20, Bit.NONE, Decision(save="final", evaluate=True, finish=True)),
        (7, Bit.PAUSE, Decision(stop="pause", save="pause")),
        (7, Bit.SIGNAL, Decision(stop="signal", save="signal")),
        (7, Bit.PAUSE | Bit.SIGNAL, Decision(stop="pause", save="pause")),
        (7, Bit.STOP | Bit.SIGNAL | Bit.SAVE, Decision(stop="stop", save="stop")),
        (6, Bit.PAUSE, Decision(stop="pause", save="pause", evaluation_due=True)),
        (20, Bit.PAUSE, Decision(save="final", evaluate=True, finish=True)),
    ],
)
def test_decisions(step: int, agreed: Bit, expected: Decision) -> None:
    """A stop saves and leaves the due evaluation; at the last step it is a finish; a pause explains its own SIGTERM."""
    assert decide(step, agreed, SCHEDULE) == expected


def test_strategy_no_still_saves_for_a_stop() -> None:
    """R-14."""
    never = replace(SCHEDULE, save_every=0, save_at_end=False)
    assert decide(20, Bit.NONE, never).save is None
    assert decide(7, Bit.PAUSE, never).save == "pause"


@given(st.integers(1, 25), st.integers(0, 127))
def test_a_stop_always_saves_or_finishes(step: int, bits: int) -> None:
    """Whatever else is agreed, and never both."""
    decision = decide(step, Bit(bits), SCHEDULE)
    stops = bool(Bit(bits) & (Bit.PAUSE | Bit.STOP | Bit.SIGNAL))
    assert decision.finish == (step >= 20)
    assert (decision.stop is not None) == (stops and step < 20)
    assert decision.stop is None or decision.save == decision.stop
    assert not (decision.evaluate and decision.stop)

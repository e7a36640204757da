"""Saves by the clock (``checkpoint.intervalMinutes``): rank 0's decides for all."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from transformers import TrainerControl, TrainerState

from finetune_trainer.worker import checkpoint
from finetune_trainer.worker import conductor as conductor_module
from finetune_trainer.worker.conductor import Conductor
from finetune_trainer.worker.orders import Bit
from tests.unit.finetune_trainer.worker.conftest import SCHEDULE, MakeSpec

SAVED_AT = 1000.0
BY_THE_CLOCK = replace(SCHEDULE, evaluate_every=0, save_every=0, evaluate_at_end=False)


class Group:
    """Combines a rank's bits with those of its peers, and keeps what the rank has said."""

    def __init__(self, peers: Bit) -> None:
        self._peers = peers
        self.said = Bit.NONE

    def agree(self, bits: Bit) -> Bit:
        self.said = bits
        return bits | self._peers


def step_end(make_spec: MakeSpec, *, peers: Bit = Bit.NONE, **changes: Any) -> tuple[Bit, TrainerControl, Conductor]:
    """End a step of one rank; returns what it says to the others, the loop's flags, and who has decided."""
    group = Group(peers)
    session: Any = Mock()
    session.spec = make_spec(checkpoint={"intervalMinutes": 10, **changes.get("checkpoint", {})})
    session.rank.is_first = changes.get("is_first", True)
    session.schedule, session.group, session.last_save = BY_THE_CLOCK, group, SAVED_AT
    session.saving = changes.get("saving")
    session.plan.lost_until_step = 0
    session.orders.take.return_value = Bit.NONE
    conductor = Conductor(session, Mock(read=list))
    conductor.attach(Mock())
    conductor._is_training = True
    control = TrainerControl()
    conductor.on_step_end(None, TrainerState(global_step=7), control)
    return group.said, control, conductor


@pytest.mark.parametrize(
    ("seconds", "changes", "is_due"),
    [
        (599.9, {}, False),
        (600.0, {}, True),
        (6000.0, {"is_first": False}, False),
        (6000.0, {"checkpoint": {"strategy": "no"}}, False),
    ],
    ids=["before", "due", "another rank's clock", "strategy no"],
)
def test_the_clock(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, seconds: float, changes: dict[str, Any], is_due: bool) -> None:
    """R-03: ten minutes after the last save, of whatever kind, one is made after the next step."""
    monkeypatch.setattr(conductor_module, "time", SimpleNamespace(monotonic=lambda: SAVED_AT + seconds))
    monkeypatch.setattr(checkpoint, "has_space", lambda *_: True)
    said, control, conductor = step_end(make_spec, **changes)
    assert (Bit.INTERVAL in said) == control.should_save == is_due
    assert not is_due or conductor.save_trigger == "interval"


def test_other_ranks_follow(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-03: a rank whose own clock is behind saves with rank 0."""
    monkeypatch.setattr(conductor_module, "time", SimpleNamespace(monotonic=lambda: SAVED_AT))
    monkeypatch.setattr(checkpoint, "has_space", lambda *_: True)
    said, control, conductor = step_end(make_spec, is_first=False, peers=Bit.INTERVAL)
    assert said is Bit.NONE
    assert control.should_save
    assert conductor.save_trigger == "interval"


def test_a_save_that_is_under_way_is_waited_for(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """R-03: writing that takes longer than the interval is not begun again meanwhile."""
    monkeypatch.setattr(conductor_module, "time", SimpleNamespace(monotonic=lambda: SAVED_AT + 6000))
    said, control, _ = step_end(make_spec, saving=Mock(writing=Mock(has_ended=False)))
    assert said is Bit.NONE
    assert not control.should_save

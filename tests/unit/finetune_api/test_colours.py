"""The one table of phases' colours."""

from __future__ import annotations

import pytest

from finetune_api.colours import PHASE_COLOUR
from finetune_api.models.status import FINAL_PHASES, RESTING_PHASES, Phase


@pytest.mark.parametrize(
    ("phase", "colour"),
    [
        (Phase.PENDING, "blue"),
        (Phase.TRAINING, "green"),
        (Phase.SUCCEEDED, "green"),
        (Phase.STOPPED, "orange"),
        (Phase.FAILED, "red"),
    ],
)
def test_the_states_of_the_requirement(phase: Phase, colour: str) -> None:
    """P-11: Pending blue, Running green, Completed green, Stopped orange, Failed red."""
    assert PHASE_COLOUR[phase].value == colour


def test_nothing_that_is_over_or_held_looks_like_waiting() -> None:
    """P-11: blue, which a new phase has until it is put elsewhere, is for phases that come before training."""
    assert set(PHASE_COLOUR) == set(Phase)
    assert [phase for phase in FINAL_PHASES | RESTING_PHASES if PHASE_COLOUR[phase].value == "blue"] == []

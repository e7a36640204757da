"""Colours of phases (P-11): one table for command line and dashboards."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from finetune_api.models.status import Phase


class Colour(StrEnum):
    """What a phase looks like, whatever shows it."""

    BLUE = "blue"
    """Waits to start."""
    GREEN = "green"
    """Runs, or ended well."""
    ORANGE = "orange"
    """Held or ended by its user, or by a limit."""
    RED = "red"
    """Failed."""


_RUNNING = (Phase.TRAINING, Phase.EVALUATING, Phase.EXPORTING, Phase.SUCCEEDED)
_HELD = (Phase.PAUSING, Phase.PAUSED, Phase.STOPPING, Phase.STOPPED, Phase.CANCELLED)

PHASE_COLOUR: Final[dict[Phase, Colour]] = {
    **dict.fromkeys(Phase, Colour.BLUE),
    **dict.fromkeys(_RUNNING, Colour.GREEN),
    **dict.fromkeys(_HELD, Colour.ORANGE),
    Phase.FAILED: Colour.RED,
}
"""Every phase has a colour; one that is added later is blue until it is put elsewhere."""

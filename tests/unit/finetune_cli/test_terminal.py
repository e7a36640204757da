"""How the command line shows phases."""

from __future__ import annotations

import pytest

from finetune_api.colours import PHASE_COLOUR
from finetune_api.models.status import FineTuneJobStatus, Phase
from finetune_cli.view import render_phase


@pytest.mark.parametrize("phase", Phase)
def test_a_phase_has_the_colour_of_the_dashboards(phase: Phase) -> None:
    """P-11: one table for command line and dashboards; the terminal's name of its orange is dark_orange."""
    style = str(render_phase(FineTuneJobStatus(phase=phase)).style)
    assert style.removeprefix("dark_") == PHASE_COLOUR[phase].value

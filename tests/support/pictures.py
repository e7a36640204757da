"""Pictures of the dashboards for docs/dashboards.md, drawn from three recorded hours: ``python -m tests.support.pictures [folder]``."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from finetune_monitoring.documents import documents
from finetune_monitoring.drawing import draw
from tests.support.monitored import history
from tests.support.platform import ROOT

CHOSEN = {"job": {"namespace": "team-b", "name": "big-sft"}}
"""The dashboard Job shows a run on GPUs that lost a node and goes on; the others show everything."""


def draw_all(folder: Path) -> list[Path]:
    """Draw every dashboard into a folder; the same picture for the same dashboards."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as scratch, history(Path(scratch)) as view:
        for path, text in documents().items():
            if path.endswith(".json"):
                name = Path(path).stem
                draw(json.loads(text), view, CHOSEN.get(name, {}), folder / f"{name}.png")
                made.append(folder / f"{name}.png")
    return made


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")

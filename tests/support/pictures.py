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

VIEWS = {
    "job": ("job", {"namespace": "team-b", "name": "big-sft"}),
    "job-grpo": ("job", {"namespace": "team-b", "name": "support-bot"}),
    "compare": ("compare", {}),
    "fleet": ("fleet", {}),
    "operator": ("operator", {}),
}
"""Picture -> dashboard and what is chosen on it. Job: a run on GPUs that lost a node and goes on; one that was paused and resumed."""


def draw_all(folder: Path) -> list[Path]:
    """Draw every dashboard into a folder; the same picture for the same dashboards."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as scratch, history(Path(scratch)) as view:
        texts = {Path(path).stem: text for path, text in documents().items()}
        for picture, (dashboard, chosen) in VIEWS.items():
            draw(json.loads(texts[dashboard]), view, chosen, folder / f"{picture}.png")
            made.append(folder / f"{picture}.png")
    return made


if __name__ == "__main__":
    draw_all(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures")

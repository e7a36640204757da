"""The dashboards, and which of their panels have nothing to show."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune_monitoring.documents import documents
from finetune_monitoring.view import View, panels

DASHBOARDS: Mapping[str, dict[str, Any]] = {
    Path(path).stem: json.loads(text) for path, text in documents().items() if path.endswith(".json")
}
Chosen = Mapping[str, str]


def empty_panels(view: View, job: Chosen, of_a_method: Mapping[str, Chosen]) -> list[str]:
    """Queries without an answer. ``job``: what is chosen on the dashboard Job; ``of_a_method``: for panels that only some methods fill."""
    found = []
    for name, dashboard in DASHBOARDS.items():
        for panel in panels(dashboard):
            variables = view.variables(dashboard, of_a_method.get(panel["title"], job) if name == "job" else {})
            found += [f"{name}/{panel['title']}/{answer.ref}" for answer in view.answers(panel, variables) if not answer.series]
    return found

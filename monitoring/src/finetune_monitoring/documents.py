"""What the chart ships: path in the chart -> text. Pure."""

from __future__ import annotations

import json
from typing import Any

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder

from finetune_monitoring.alerts import rule_groups
from finetune_monitoring.dashboards import dashboards

FOLDER = "files/monitoring"
HEADER = "# Made by helm/sync.py from monitoring/src/finetune_monitoring/alerts.py: edit that, not this. A plain Prometheus rule file.\n"


def documents() -> dict[str, str]:
    """Every generated file."""
    files = {f"{FOLDER}/dashboards/{name}.json": dashboard_json(dashboard.build()) for name, dashboard in dashboards().items()}
    files[f"{FOLDER}/rules.yaml"] = HEADER + yaml.safe_dump(rule_groups(), sort_keys=False, width=160, allow_unicode=True)
    return files


def dashboard_json(dashboard: Any) -> str:
    """A dashboard as Grafana reads it; panels get their numbers from their order."""
    for number, panel in enumerate(dashboard.panels, start=1):
        panel.id_val = number
    return json.dumps(dashboard, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"

"""The dashboards of the chart."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from finetune_monitoring.dashboards import compare, fleet, job, operator


def dashboards() -> dict[str, Dashboard]:
    """A builder of each, by the name of its file."""
    return {"job": job.build(), "compare": compare.build(), "fleet": fleet.build(), "operator": operator.build()}

"""What all dashboards have in common."""

from __future__ import annotations

from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders.dashboard import Dashboard, Row
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import DashboardCursorSync, DashboardLinkType, Panel, VariableModel

from finetune_api.contract import metrics
from finetune_monitoring.variables import number, values

TAG: Final = "finetune"
PRICE: Final = "$gpu_price"


def frame(uid: str, title: str, description: str, *, since: str, refresh: str = "30s") -> Dashboard:
    """An empty dashboard: stable uid, the time of whoever looks, links to the others."""
    others = builders.DashboardLink("FineTune").type(DashboardLinkType.DASHBOARDS).tags([TAG]).as_dropdown(as_dropdown=True)
    return (
        Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .timezone("browser")
        .time(f"now-{since}", "now")
        .refresh(refresh)
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .readonly()
        .link(others.keep_time(keep_time=True).include_vars(include_vars=True))
    )


def row(dashboard: Dashboard, heading: str, *panels: Builder[Panel]) -> Dashboard:
    """Add a heading and the panels under it."""
    dashboard = dashboard.with_row(Row(heading))
    for panel in panels:
        dashboard = dashboard.with_panel(panel)
    return dashboard


def namespace(*, many: bool = False) -> Builder[VariableModel]:
    """Namespaces with jobs."""
    return values("namespace", "Namespace", f"label_values({metrics.JOB_PHASE}, finetune_namespace)", many=many)


def name(label: str, *, many: bool = False) -> Builder[VariableModel]:
    """Jobs of the chosen namespaces."""
    return values("name", label, f'label_values({metrics.JOB_PHASE}{{finetune_namespace=~"$namespace"}}, finetune_job)', many=many)


def price() -> Builder[VariableModel]:
    """What an hour of a GPU costs, for jobs without a price of a GpuType."""
    return number("gpu_price", "Price of a GPU hour", "2.50", "For jobs whose GPUs have no price in a GpuType; in the same currency")

"""status.dashboardURL leads to the dashboard that the chart ships."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from finetune_operator.plan.status import dashboard_url
from finetune_operator.settings import Settings
from tests.support.manifests import ROOT
from tests.support.operator_cluster import SETTINGS, FakeCluster

DASHBOARD = json.loads((ROOT / "helm/finetune-operator/files/monitoring/dashboards/job.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("written", ["https://grafana.example/base", "https://grafana.example/base/"])
async def test_the_address_is_the_shipped_dashboards_with_its_variables(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    """T-10."""
    for name, value in {
        "TRAINER_IMAGE": "t:1",
        "STORAGE_BUCKET": "finetune",
        "PROGRESS_URL": "https://o:8443",
        "GRAFANA_URL": written,
    }.items():
        monkeypatch.setenv(f"FINETUNE_OPERATOR_{name}", value)
    cluster = FakeCluster(SETTINGS.model_copy(update={"grafana_url": Settings().for_plan("1").grafana_url}))
    cluster.create()
    await cluster.settle()
    url = urlsplit(cluster.status.dashboard_url or "")
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"https://grafana.example/base/d/{DASHBOARD['uid']}"
    assert parse_qs(url.query) == {"var-namespace": ["default"], "var-name": ["demo"]}
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert {name.removeprefix("var-") for name in parse_qs(url.query)} <= variables


def test_without_grafana_there_is_no_address() -> None:
    assert dashboard_url(None, "default", "demo") is None

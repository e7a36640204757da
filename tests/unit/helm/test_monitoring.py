"""What a Prometheus and a Grafana find: monitors that meet pods, rules with this installation's labels, dashboards."""

from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_api.contract import env
from finetune_monitoring.alerts import job_alerts, operator_alerts
from finetune_monitoring.dashboards import dashboards
from finetune_operator.plan.status import dashboard_url
from finetune_operator.plan.workload import build_job
from finetune_operator.settings import PlanSettings
from tests.support.operator_cluster import SETTINGS
from tests.support.operator_values import make_config, make_job
from tests.unit.helm.chart import (
    MATRIX,
    NAMESPACE,
    Helm,
    Manifest,
    Values,
    containers,
    documents,
    environment,
    of_kind,
    one,
    operator_settings,
)

ALERTS = {alert.name: alert for alert in (*operator_alerts(), *job_alerts())}


@pytest.fixture(scope="module")
def monitored(rendered: dict[str, dict[str, str]]) -> list[Manifest]:
    """The chart with all monitoring."""
    return documents(rendered["helm"]["monitored"])


def trainer_pod(settings: PlanSettings = SETTINGS) -> Manifest:
    """Template of the pods of a run."""
    template: Manifest = build_job(make_job(), make_config(), settings, reason="Created")["spec"]["template"]
    return template


def operator_pod(manifests: list[Manifest]) -> Manifest:
    template: Manifest = one(manifests, "Deployment", "finetune-operator")["spec"]["template"]
    return template


def port_names(pod: Manifest) -> dict[str, int]:
    """Ports of a pod's containers."""
    return {port["name"]: port["containerPort"] for container in containers(pod["spec"]) for port in container.get("ports", [])}


def selected(selector: Manifest, labels: dict[str, str]) -> bool:
    wanted: dict[str, str] = selector["matchLabels"]
    return wanted.items() <= labels.items()


def alerts_of(manifests: list[Manifest]) -> dict[str, Manifest]:
    (rule,) = of_kind(manifests, "PrometheusRule")
    return {alert["alert"]: alert for group in rule["spec"]["groups"] for alert in group["rules"]}


def test_the_service_monitor_finds_the_operator(monitored: list[Manifest]) -> None:
    """Its selector matches the one Service that has the port, and that port leads to one of the operator's pod."""
    (monitor,) = of_kind(monitored, "ServiceMonitor")
    found = [service for service in of_kind(monitored, "Service") if selected(monitor["spec"]["selector"], service["metadata"]["labels"])]
    assert [service["metadata"]["name"] for service in found] == ["finetune-operator"]
    (endpoint,) = monitor["spec"]["endpoints"]
    ports = {port["name"]: port["targetPort"] for port in found[0]["spec"]["ports"]}
    assert ports[endpoint["port"]] in port_names(operator_pod(monitored))
    assert monitor["metadata"]["labels"]["release"] == "prometheus"


def test_the_pod_monitor_finds_trainers(monitored: list[Manifest]) -> None:
    """The labels and the port are those of pods that the operator makes, in every namespace."""
    (monitor,) = of_kind(monitored, "PodMonitor")
    pod = trainer_pod()
    assert selected(monitor["spec"]["selector"], pod["metadata"]["labels"])
    assert not selected(monitor["spec"]["selector"], operator_pod(monitored)["metadata"]["labels"])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert port_names(pod)[endpoint["port"]] == env.METRICS_PORT
    assert monitor["spec"]["namespaceSelector"] == {"any": True}


def test_in_namespaced_mode_the_pod_monitor_looks_where_jobs_are(helm: Helm) -> None:
    (monitor,) = of_kind(helm.template({**MATRIX["namespaced"], "metrics": {"podMonitor": {"enabled": True}}}), "PodMonitor")
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [NAMESPACE, "team-a", "team-b"]}


def scraped_at(metadata: dict[str, Any]) -> dict[str, str]:
    """Those by which a Prometheus without its operator finds pods."""
    return {key: value for key, value in metadata.get("annotations", {}).items() if key.startswith("prometheus.io/")}


def test_scrape_annotations_lead_to_ports_that_are_there(default_manifests: list[Manifest]) -> None:
    for pod in (operator_pod(default_manifests), trainer_pod()):
        found = scraped_at(pod["metadata"])
        assert (found["prometheus.io/scrape"], found["prometheus.io/path"]) == ("true", "/metrics")
        assert int(found["prometheus.io/port"]) in port_names(pod).values()


def test_without_scrape_annotations_no_pod_has_any(monitored: list[Manifest]) -> None:
    """Nothing is scraped twice beside the monitors: neither the operator nor, as its setting says, the trainers."""
    operator = operator_pod(monitored)
    assert scraped_at(operator["metadata"]) == {}
    setting = environment(operator["spec"]["containers"][0])["FINETUNE_OPERATOR_SCRAPE_ANNOTATIONS"]
    settings = PlanSettings.model_validate({**SETTINGS.model_dump(), "scrape_annotations": setting})
    assert scraped_at(trainer_pod(settings)["metadata"]) == {}


def test_rules_have_the_labels_of_the_installation(monitored: list[Manifest]) -> None:
    """Labels by which Prometheus finds the rules, and labels each alert is routed by; severities stay."""
    (rule,) = of_kind(monitored, "PrometheusRule")
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    alerts = alerts_of(monitored)
    assert set(alerts) == set(ALERTS)
    for name, alert in alerts.items():
        assert alert == {**ALERTS[name].document, "labels": {"team": "ml", "severity": ALERTS[name].severity.value}}


def test_a_rule_label_does_not_replace_a_severity(helm: Helm) -> None:
    values: Values = {"metrics": {"prometheusRule": {"enabled": True, "ruleLabels": {"severity": "page"}}}}
    assert {name: alert["labels"]["severity"] for name, alert in alerts_of(helm.template(values)).items()} == {
        name: alert.severity.value for name, alert in ALERTS.items()
    }


def test_runbooks_and_alerts_left_out(helm: Helm) -> None:
    """The pages are where they are published; a group without alerts is not there."""
    operator = [alert.name for alert in operator_alerts()]
    values: Values = {
        "metrics": {
            "prometheusRule": {"enabled": True, "runbookBaseUrl": "https://wiki.example/ft/", "disabled": [*operator, "FineTuneJobFailed"]}
        }
    }
    manifests = helm.template(values)
    alerts = alerts_of(manifests)
    assert set(alerts) == set(ALERTS) - {*operator, "FineTuneJobFailed"}
    for name, alert in alerts.items():
        assert alert["annotations"]["runbook_url"] == f"https://wiki.example/ft/{name}.md"
    (rule,) = of_kind(manifests, "PrometheusRule")
    assert [group["name"] for group in rule["spec"]["groups"]] == ["finetune-jobs"]


def config_maps(manifests: list[Manifest]) -> dict[str, Manifest]:
    """ConfigMaps of dashboards."""
    return {each["metadata"]["name"]: each for each in of_kind(manifests, "ConfigMap") if "-dashboard-" in each["metadata"]["name"]}


def test_the_sidecar_finds_the_dashboards(default_manifests: list[Manifest]) -> None:
    """By its label, with the folder; each file is the dashboard of its name."""
    found = config_maps(default_manifests)
    assert set(found) == {f"finetune-dashboard-{name}" for name in dashboards()}
    for name, config in found.items():
        short = name.removeprefix("finetune-dashboard-")
        assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert config["metadata"]["annotations"] == {"grafana_folder": "FineTune"}
        assert config["metadata"]["namespace"] == NAMESPACE
        assert json.loads(config["data"][f"{short}.json"])["uid"] == f"finetune-{short}"


def test_dashboards_of_another_namespace_without_a_folder(helm: Helm) -> None:
    for config in config_maps(helm.template(MATRIX["dashboards-elsewhere"])).values():
        assert config["metadata"]["namespace"] == "monitoring"
        assert "annotations" not in config["metadata"]


def test_the_grafana_operator_finds_the_dashboards(monitored: list[Manifest]) -> None:
    """Each GrafanaDashboard names a key that its ConfigMap has, in its own namespace."""
    found = of_kind(monitored, "GrafanaDashboard")
    assert len(found) == len(dashboards())
    for dashboard in found:
        reference = dashboard["spec"]["configMapRef"]
        config = one(monitored, "ConfigMap", reference["name"], dashboard["metadata"]["namespace"])
        assert json.loads(config["data"][reference["key"]])["title"].startswith("FineTune / ")
        assert dashboard["spec"]["instanceSelector"] == {"matchLabels": {"dashboards": "grafana"}}
        assert dashboard["spec"]["folder"] == "FineTune"


def test_dashboards_for_the_grafana_operator_alone(helm: Helm) -> None:
    """Without the sidecar's label they are not imported twice."""
    manifests = helm.template({"grafana": {"dashboards": {"enabled": False}, "grafanaDashboard": {"enabled": True}}})
    assert len(of_kind(manifests, "GrafanaDashboard")) == len(config_maps(manifests)) == len(dashboards())
    for config in config_maps(manifests).values():
        assert "grafana_dashboard" not in config["metadata"]["labels"]
        assert "annotations" not in config["metadata"]


def test_no_dashboards(rendered: dict[str, dict[str, str]]) -> None:
    assert config_maps(documents(rendered["helm"]["without-dashboards"])) == {}


def test_the_address_of_a_jobs_dashboard(
    monkeypatch: pytest.MonkeyPatch, monitored: list[Manifest], default_manifests: list[Manifest]
) -> None:
    """T-10: from grafana.url, with the uid of the dashboard that the chart ships; without it jobs name none."""
    assert operator_settings(monkeypatch, default_manifests).grafana_url is None
    shown = dashboard_url(operator_settings(monkeypatch, monitored).grafana_url, "team-a", "chat")
    uid = json.loads(config_maps(monitored)["finetune-dashboard-job"]["data"]["job.json"])["uid"]
    assert shown == f"https://grafana.example.com/d/{uid}?var-namespace=team-a&var-name=chat"

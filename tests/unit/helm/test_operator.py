"""The operator's Deployment: settings the operator understands, one Secret it may fill."""

from __future__ import annotations

import pytest

from tests.unit.helm.chart import MATRIX, NAMESPACE, Helm, Manifest, Values, of_kind, one, operator_settings, pod_specs


def test_settings_are_valid_in_every_case(monkeypatch: pytest.MonkeyPatch, case: tuple[str, Values], manifests: list[Manifest]) -> None:
    """The operator accepts what the chart renders, and no variable is unknown to it."""
    settings = operator_settings(monkeypatch, manifests)
    assert settings.namespace == NAMESPACE
    service = one(manifests, "Service", settings.lease_name, NAMESPACE)
    assert settings.progress_url == f"https://{service['metadata']['name']}.{NAMESPACE}.svc"
    ports = {port["name"]: port for port in service["spec"]["ports"]}
    assert ports["progress"]["port"] == 443
    container = one(manifests, "Deployment", settings.lease_name)["spec"]["template"]["spec"]["containers"][0]
    numbers = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert numbers == {"progress": settings.progress_port, "http": settings.http_port}
    embedded = case[1].get("storage", {}).get("embedded", {}).get("enabled", True)
    assert settings.storage_bucket == ("finetune" if embedded else "team-bucket")


def test_store_of_the_embedded_minio(monkeypatch: pytest.MonkeyPatch, default_manifests: list[Manifest]) -> None:
    """Jobs reach the embedded store by its Service."""
    settings = operator_settings(monkeypatch, default_manifests)
    assert settings.endpoint_url == "http://finetune-minio.finetune-system.svc:9000"
    assert one(default_manifests, "Service", "finetune-minio")["spec"]["ports"][0]["port"] == 9000


def test_namespaced_mode(monkeypatch: pytest.MonkeyPatch, helm: Helm) -> None:
    """Namespaces to watch are those of the jobs and the release's own."""
    settings = operator_settings(monkeypatch, helm.template(MATRIX["namespaced-without-cluster-role"]))
    assert settings.watch_namespaces == ("default", NAMESPACE)
    assert not settings.cluster_reads
    settings = operator_settings(monkeypatch, helm.template(MATRIX["namespaced"]))
    assert settings.watch_namespaces == (NAMESPACE, "team-a", "team-b")
    assert settings.cluster_reads


def test_the_world_outside(monkeypatch: pytest.MonkeyPatch, helm: Helm) -> None:
    """Proxies, CAs and offline mode of trainer pods are values."""
    values: Values = {
        "trainer": {
            "proxy": {"http": "http://proxy:3128", "https": "http://proxy:3128", "noProxy": ".corp.example"},
            "caBundle": {"configMap": "corporate-cas", "key": "bundle.pem"},
            "offline": True,
        }
    }
    settings = operator_settings(monkeypatch, helm.template(values))
    assert (settings.trainer_http_proxy, settings.trainer_https_proxy) == ("http://proxy:3128", "http://proxy:3128")
    assert (settings.trainer_no_proxy, settings.trainer_offline) == (".corp.example", True)
    assert (settings.trainer_ca_configmap, settings.trainer_ca_key) == ("corporate-cas", "bundle.pem")


def test_a_webhook_is_known_by_value_or_by_secret(monkeypatch: pytest.MonkeyPatch, helm: Helm) -> None:
    """AB-05: an address in the values, or a Secret of one's own that holds it, with a token where there is one."""
    webhook = {"url": "https://chat.example.com/hook", "reasons": ["Failed", "Stalled"]}
    settings = operator_settings(monkeypatch, helm.template({"notifications": {"webhook": webhook}}))
    assert (settings.webhook_url, settings.webhook_reasons) == ("https://chat.example.com/hook", ("Failed", "Stalled"))

    def of_secret(webhook: Values) -> dict[str, tuple[str, bool]]:
        deployment = one(helm.template({"notifications": {"webhook": webhook}}), "Deployment", "finetune-operator")
        variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
        references = {variable["name"]: variable.get("valueFrom", {}).get("secretKeyRef") for variable in variables}
        return {name: (reference["key"], reference["optional"]) for name, reference in references.items() if reference}

    url, token = "FINETUNE_OPERATOR_WEBHOOK_URL", "FINETUNE_OPERATOR_WEBHOOK_TOKEN"
    assert of_secret({"existingSecret": "team-chat"}) == {url: ("url", False), token: ("token", True)}
    assert of_secret({"existingSecret": "team-chat", "url": "https://chat.example.com"}) == {token: ("token", True)}
    assert of_secret({}) == {}


def test_all_namespaces_by_default(monkeypatch: pytest.MonkeyPatch, default_manifests: list[Manifest]) -> None:
    """Without namespaced mode nothing narrows the watch."""
    settings = operator_settings(monkeypatch, default_manifests)
    assert settings.watch_namespaces == ()
    assert settings.cluster_reads
    assert settings.tls_source == "self"


def test_certificate_secret_is_rendered_without_data(default_manifests: list[Manifest]) -> None:
    """An upgrade can take nothing back that the operator wrote: there is no key in the chart's version."""
    secret = one(default_manifests, "Secret", "finetune-operator-tls")
    assert not {"data", "stringData", "immutable"} & secret.keys()
    assert secret["type"] == "Opaque"


def test_certificate_of_ones_own(monkeypatch: pytest.MonkeyPatch, helm: Helm) -> None:
    """With an existing Secret the chart makes none and the operator only reads it."""
    manifests = helm.template(MATRIX["own-certificate"])
    assert [m for m in of_kind(manifests, "Secret") if "tls" in m["metadata"]["name"]] == []
    settings = operator_settings(monkeypatch, manifests)
    assert (settings.tls_source, settings.tls_secret) == ("external", "cert-manager-made")


def test_a_single_operator_has_no_disruption_budget(default_manifests: list[Manifest]) -> None:
    """A budget over one replica would only block a drain."""
    assert of_kind(default_manifests, "PodDisruptionBudget") == []


def test_probes_and_metrics(default_manifests: list[Manifest]) -> None:
    """Every long-lived container can be seen alive and ready; metrics are annotated (T-03)."""
    for name, spec in pod_specs(of_kind(default_manifests, "Deployment")):
        for container in spec["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys(), name
            ports = {port["name"] for port in container["ports"]}
            assert {container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")} <= ports
    annotations = one(default_manifests, "Deployment", "finetune-operator")["spec"]["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == "8080"

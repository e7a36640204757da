"""NetworkPolicies: who reaches the operator, the store and the pods of jobs (they cannot be shown on a node that ignores them)."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.contract.env import METRICS_PORT
from tests.unit.helm.chart import EXTERNAL, NAMESPACE, Helm, Manifest, of_kind, one

ON = {"networkPolicy": {"enabled": True}}
OF_JOBS = {"matchExpressions": [{"key": "finetune.dev/job", "operator": "Exists"}]}


def jobs_policy(helm: Helm, values: dict[str, Any], namespace: str = "default") -> Manifest:
    return dict(one(helm.template({**ON, **values}), "NetworkPolicy", "finetune-jobs", namespace)["spec"])


def ports(rules: list[Manifest]) -> set[Any]:
    return {port["port"] for rule in rules for port in rule.get("ports", [])}


def test_none_by_default(default_manifests: list[Manifest]) -> None:
    assert of_kind(default_manifests, "NetworkPolicy") == []


def test_policies_of_jobs_are_where_jobs_are(helm: Helm) -> None:
    manifests = helm.template({**ON, "jobNamespaces": ["team-a", "team-b"]})
    where = {(policy["metadata"]["namespace"], policy["metadata"]["name"]) for policy in of_kind(manifests, "NetworkPolicy")}
    assert where == {
        (NAMESPACE, "finetune-operator"),
        (NAMESPACE, "finetune-minio"),
        *((namespace, "finetune-jobs") for namespace in ("team-a", "team-b", NAMESPACE)),
    }


def test_ranks_reach_each_other_and_nobody_else_reaches_them(helm: Helm) -> None:
    spec = jobs_policy(helm, {})
    assert spec["podSelector"] == OF_JOBS
    ranks, metrics = spec["ingress"]
    assert ranks == {"from": [{"podSelector": OF_JOBS}]}
    assert metrics == {"ports": [{"port": "metrics"}]}
    assert spec["egress"][0] == {"to": [{"podSelector": OF_JOBS}]}
    assert METRICS_PORT == 9090  # the named port of the trainer container


def test_jobs_reach_what_they_need(helm: Helm) -> None:
    """Name service, the operator's progress endpoint, the embedded store, HTTPS for models and data."""
    egress = jobs_policy(helm, {})["egress"]
    assert ports(egress) == {53, "progress", "s3", 443}
    assert ports(jobs_policy(helm, {"networkPolicy": {"enabled": True, "jobs": {"egress": []}}})["egress"]) == {53, "progress", "s3"}


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("", 443), ("https://s3.example.com", 443), ("http://minio.example.com:9000", 9000), ("http://minio.example.com", 80)],
)
def test_jobs_reach_an_external_store(helm: Helm, endpoint: str, port: int) -> None:
    storage = {"embedded": {"enabled": False}, "external": {"bucket": "team-bucket", "endpoint": endpoint}}
    values = {"storage": storage, "networkPolicy": {"enabled": True, "jobs": {"egress": []}}}
    assert ports(jobs_policy(helm, values)["egress"]) == {53, "progress", port}
    assert [p for p in of_kind(helm.template({**ON, **EXTERNAL}), "NetworkPolicy") if p["metadata"]["name"] == "finetune-minio"] == []


def test_only_who_may_reads_metrics(helm: Helm) -> None:
    peers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
    manifests = helm.template({"networkPolicy": {"enabled": True, "metricsFrom": peers}})
    for name, namespace in (("finetune-operator", NAMESPACE), ("finetune-jobs", "default")):
        ingress = one(manifests, "NetworkPolicy", name, namespace)["spec"]["ingress"]
        assert ingress[-1]["from"] == peers


def test_policies_of_jobs_can_be_left_out(helm: Helm) -> None:
    manifests = helm.template({"networkPolicy": {"enabled": True, "jobs": {"enabled": False}}})
    assert "finetune-jobs" not in {policy["metadata"]["name"] for policy in of_kind(manifests, "NetworkPolicy")}


def test_the_operator_reaches_a_webhook_only_where_there_is_one(helm: Helm) -> None:
    """AB-05: its ports are open where events are sent somewhere."""

    def egress(webhook: dict[str, str]) -> set[Any]:
        values = {"networkPolicy": {"enabled": True, "webhookPorts": [8065]}, "notifications": {"webhook": webhook}}
        return ports(one(helm.template(values), "NetworkPolicy", "finetune-operator")["spec"]["egress"])

    assert egress({"url": "https://chat.example.com/hook"}) - egress({}) == {8065}
    assert egress({"existingSecret": "team-chat"}) - egress({}) == {8065}

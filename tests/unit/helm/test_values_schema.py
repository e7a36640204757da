"""values.schema.json refuses what is wrong, with the value's path, and covers all there is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from finetune_operator.settings import Settings
from tests.unit.helm.chart import CHART, Helm, HelmError, Values

SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
PASSED_ON = {"nodeAffinity", "podAffinity", "podAntiAffinity", "topologySpreadConstraints", "valueFrom", "metricsFrom", "egress", "global"}
"""Parts of the Kubernetes API that the chart passes on and the API server checks."""


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"unknown": 1}, "unknown"),
        ({"image": {"tag": "1"}}, "/image"),
        ({"image": {"operator": "Name With Space"}}, "/image/operator"),
        ({"image": {"operator": "a@sha256:123"}}, "/image/operator"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"image": {"pullSecrets": "regcred"}}, "/image/pullSecrets"),
        ({"jobNamespaces": "default"}, "/jobNamespaces"),
        ({"jobNamespaces": ["Team_A"]}, "/jobNamespaces/0"),
        ({"jobNamespaces": ["a", "a"]}, "/jobNamespaces"),
        ({"operator": {"replicas": "2"}}, "/operator/replicas"),
        ({"operator": {"replicas": -1}}, "/operator/replicas"),
        ({"operator": {"logLevel": "trace"}}, "/operator/logLevel"),
        ({"operator": {"settings": {"workers": 0}}}, "/operator/settings/workers"),
        ({"operator": {"settings": {"worker": 1}}}, "/operator/settings"),
        ({"operator": {"resources": {"limits": {"memory": "lots"}}}}, "/operator/resources/limits/memory"),
        ({"operator": {"resources": {"memory": "1Gi"}}}, "/operator/resources"),
        ({"operator": {"tolerations": [{"effect": "Never"}]}}, "/operator/tolerations/0/effect"),
        ({"operator": {"extraEnv": {"A": "b"}}}, "/operator/extraEnv"),
        ({"operator": {"extraEnvFrom": [{"configMap": {"name": "a"}}]}}, "/operator/extraEnvFrom/0"),
        ({"podSecurityContext": {"runAsUser": 0}}, "/podSecurityContext/runAsUser"),
        ({"podSecurityContext": {"privileged": True}}, "/podSecurityContext"),
        ({"rbac": {"namespaced": "yes"}}, "/rbac/namespaced"),
        ({"crds": {"keep": "false"}}, "/crds/keep"),
        ({"storage": {"secretName": ""}}, "/storage/secretName"),
        ({"storage": {"embedded": {"bucket": "ab"}}}, "/storage/embedded/bucket"),
        ({"storage": {"embedded": {"accessKeyId": "abc"}}}, "/storage/embedded/secretAccessKey"),
        ({"storage": {"embedded": {"accessKeyId": "abc", "secretAccessKey": "short"}}}, "/storage/embedded/secretAccessKey"),
        ({"storage": {"embedded": {"persistence": {"size": "20 GB"}}}}, "/storage/embedded/persistence/size"),
        ({"storage": {"embedded": {"enabled": False}}}, "/storage/external/bucket"),
        ({"storage": {"external": {"endpoint": "minio:9000"}}}, "/storage/external/endpoint"),
        ({"storage": {"external": {"endpoint": "https://minio/bucket"}}}, "/storage/external/endpoint"),
        ({"storage": {"external": {"caCertificate": "/etc/ssl/ca.pem"}}}, "/storage/external/caCertificate"),
        ({"metrics": {"podMonitor": {"interval": "15"}}}, "/metrics/podMonitor/interval"),
        ({"networkPolicy": {"apiServerPorts": []}}, "/networkPolicy/apiServerPorts"),
        ({"gpuTypes": {"hourlyRates": {"h1000": "1"}}}, "/gpuTypes/hourlyRates"),
        ({"gpuTypes": {"hourlyRates": {"h100": "2,50"}}}, "/gpuTypes/hourlyRates/h100"),
        ({"gpuTypes": {"currency": "Dollar"}}, "/gpuTypes/currency"),
        ({"test": {"timeoutSeconds": 5}}, "/test/timeoutSeconds"),
    ],
)
def test_refuses_wrong_values(helms: dict[str, Helm], values: Values, path: str) -> None:
    """A wrong value is named before anything is installed."""
    with pytest.raises(HelmError, match=path):
        helms["helm"].template(values)


def test_helm_3_checks_the_schema_too(helms: dict[str, Helm]) -> None:
    """Both versions refuse."""
    with pytest.raises(HelmError, match=r"additional properties 'tag' not allowed"):
        helms["helm3"].template({"image": {"tag": "1"}})


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    """A schema node with its reference followed."""
    while "$ref" in node:
        node = SCHEMA["definitions"][node["$ref"].rpartition("/")[2]]
    return node


def nodes(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Each place of the schema where a value stands."""
    node = resolved(node)
    yield path, node
    for key, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{key}" if path else key)
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")


@pytest.mark.parametrize(("path", "node"), list(nodes(SCHEMA)))
def test_every_value_is_typed_and_every_object_closed(path: str, node: dict[str, Any]) -> None:
    """No value may be anything, no object may hold anything."""
    if path.removesuffix("[]").rpartition(".")[2] in PASSED_ON:
        return
    assert "type" in node or "enum" in node, path
    if node.get("type") == "object":
        extra = node.get("additionalProperties", True)
        assert extra is False or isinstance(extra, dict), path


def test_schema_and_values_have_the_same_keys() -> None:
    """Nothing is configurable that values.yaml does not show, and the reverse."""

    def keys(node: dict[str, Any], values: Any, path: str) -> Iterator[tuple[str, set[str], set[str]]]:
        node = resolved(node)
        if isinstance(values, dict) and values and "properties" in node and "requests" not in values:
            yield path, set(node["properties"]) - {"global"}, set(values)
            for key, child in values.items():
                yield from keys(node["properties"].get(key, {}), child, f"{path}.{key}")

    for path, in_schema, in_values in keys(SCHEMA, DEFAULTS, ""):
        assert in_schema == in_values, path or "top level"


def snake(name: str) -> str:
    """LEASE_SECONDS-style lower-case name of a camelCase key."""
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


@pytest.mark.parametrize("key", DEFAULTS["operator"]["settings"])
def test_operator_settings_mirror_the_operator(key: str) -> None:
    """Default and range of each setting are those of the operator itself."""
    field = Settings.model_fields[snake(key)]
    assert DEFAULTS["operator"]["settings"][key] == field.default
    schema = SCHEMA["properties"]["operator"]["properties"]["settings"]["properties"][key]
    bounds = {name: getattr(rule, short) for rule in field.metadata for short, name in BOUNDS.items() if hasattr(rule, short)}
    assert {name: schema[name] for name in BOUNDS.values() if name in schema} == bounds


BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}

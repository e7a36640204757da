"""Renders the chart with real Helm programs, and looks into what comes out."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import yaml

from finetune_cluster.home import Home
from finetune_operator.settings import Settings

ROOT = Path(__file__).parents[3]
CHART = ROOT / "helm" / "finetune-operator"
RELEASE, NAMESPACE = "finetune", "finetune-system"
KUBERNETES = "1.32.0"
Manifest: TypeAlias = dict[str, Any]
Values: TypeAlias = Mapping[str, Any]

EXTERNAL: Values = {"storage": {"embedded": {"enabled": False}, "external": {"bucket": "team-bucket"}}}

MATRIX: Mapping[str, Values] = {
    "defaults": {},
    "two-operators": {"operator": {"replicas": 2}},
    "namespaced": {"rbac": {"namespaced": True}, "jobNamespaces": ["team-a", "team-b"]},
    "namespaced-without-cluster-role": {
        "rbac": {"namespaced": True, "clusterReads": False, "userRoles": False},
        "crds": {"install": False},
        "presets": {"install": False},
        "baseModels": {"install": False},
        "gpuTypes": {"install": False},
        "deletionProtection": {"enabled": False},
    },
    "external-store": EXTERNAL,
    "external-store-with-keys": {
        "storage": {
            "embedded": {"enabled": False},
            "external": {
                "endpoint": "https://s3.example.com",
                "region": "eu-west-1",
                "bucket": "team-bucket",
                "accessKeyId": "AKIA0",
                "secretAccessKey": "0123456789",
                "caCertificate": "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
            },
        }
    },
    "store-without-volume": {"storage": {"embedded": {"persistence": {"enabled": False}}}},
    "store-with-own-secret": {"storage": {"embedded": {"existingSecret": "minio-root"}}},
    "store-with-own-claim": {"storage": {"embedded": {"persistence": {"existingClaim": "data", "storageClassName": "fast"}}}},
    "own-certificate": {"tls": {"existingSecret": "cert-manager-made"}},
    "crds-not-kept": {"crds": {"keep": False}},
    "monitored": {
        "metrics": {
            "scrapeAnnotations": False,
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
            "podMonitor": {"enabled": True},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "ruleLabels": {"team": "ml"}},
        },
        "grafana": {"url": "https://grafana.example.com/", "grafanaDashboard": {"enabled": True}},
        "networkPolicy": {"enabled": True, "metricsFrom": [{"namespaceSelector": {}}]},
    },
    "notifying": {
        "notifications": {"webhook": {"existingSecret": "team-chat", "reasons": ["Failed"]}},
        "networkPolicy": {"enabled": True, "webhookPorts": [8443]},
    },
    "without-dashboards": {"grafana": {"dashboards": {"enabled": False}}},
    "dashboards-elsewhere": {"grafana": {"dashboards": {"namespace": "monitoring", "folder": ""}}},
    "everything-placed": {
        "fullnameOverride": "ml-operator",
        "commonLabels": {"team": "ml"},
        "image": {"registry": "registry.example.com:5000/ml", "pullSecrets": ["pull-a", "pull-b"], "pullPolicy": "Always"},
        "serviceAccount": {"name": "own", "annotations": {"a.example.com/b": "c"}},
        "operator": {
            "replicas": 3,
            "priorityClassName": "system-cluster-critical",
            "nodeSelector": {"pool": "infra"},
            "tolerations": [{"key": "infra", "operator": "Exists", "effect": "NoSchedule"}],
            "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "topology.kubernetes.io/zone",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "operator"}},
                }
            ],
            "podLabels": {"extra": "label"},
            "podAnnotations": {"extra.example.com/annotation": "yes"},
            "extraEnv": [{"name": "TZ", "value": "UTC"}],
            "extraEnvFrom": [{"configMapRef": {"name": "more", "optional": True}}],
        },
        "storage": {"embedded": {"nodeSelector": {"disk": "fast"}, "priorityClassName": "high", "podLabels": {"extra": "label"}}},
    },
    "platform-assigns-users": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}},
}
"""Values that together render every template and every branch of it."""


class HelmError(AssertionError):
    """Helm refused; the message is what it said."""


@dataclass(frozen=True)
class Helm:
    """One Helm program."""

    program: Path
    environment: Mapping[str, str] | None = None
    """None: this process's own."""

    def run(self, *arguments: str, values: Values | None = None) -> str:
        """Standard output of a command that must work."""
        stdin = None if values is None else json.dumps(dict(values))
        with_values = [] if values is None else ["--values", "-"]
        command = [str(self.program), *arguments, *with_values]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False, timeout=900, env=self.environment)
        if done.returncode:
            raise HelmError(done.stdout + done.stderr)
        return done.stdout

    def lint(self, values: Values) -> str:
        """What ``helm lint --strict`` says."""
        return self.run("lint", "--strict", "--kube-version", KUBERNETES, str(CHART), values=values)

    def text(self, values: Values | None = None, *arguments: str, namespace: str = NAMESPACE) -> str:
        """What ``helm template`` prints: every object of the chart, hooks included."""
        command = ("template", RELEASE, str(CHART), "--namespace", namespace, "--kube-version", KUBERNETES, *arguments)
        return self.run(*command, values=values)

    def template(self, values: Values | None = None, *arguments: str, namespace: str = NAMESPACE) -> list[Manifest]:
        """The same as objects."""
        return documents(self.text(values, *arguments, namespace=namespace))

    def notes(self, values: Values | None = None) -> str:
        """What is printed after an installation."""
        command = ("install", RELEASE, str(CHART), "--namespace", NAMESPACE, "--dry-run=client")
        return self.run(*command, values=values).rpartition("\nNOTES:\n")[2]


def documents(text: str) -> list[Manifest]:
    """The objects in a YAML stream; by libyaml, for CRDs are long."""
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


def helm_programs() -> dict[str, Helm]:
    """Helm 4 (``helm``) and Helm 3 (``helm3``), from PATH or the cluster's tools; built if this machine has none."""

    def found() -> dict[str, Helm]:
        folders = f"{os.environ['PATH']}{os.pathsep}{Home.of(os.environ).bin}"
        paths = {name: shutil.which(name, path=folders) for name in ("helm", "helm3")}
        return {name: Helm(Path(path)) for name, path in paths.items() if path is not None}

    if len(found()) < 2:
        subprocess.run([sys.executable, "-m", "finetune_cluster", "tools", "helm", "helm3"], check=True, cwd=ROOT)
    programs = found()
    assert len(programs) == 2, f"finetune-cluster made only {list(programs)}"
    return programs


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    """The objects of these kinds."""
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def one(manifests: list[Manifest], kind: str, name: str, namespace: str | None = None) -> Manifest:
    """The object of this kind and name."""
    found = [
        manifest
        for manifest in of_kind(manifests, kind)
        if manifest["metadata"]["name"] == name and namespace in (None, manifest["metadata"].get("namespace"))
    ]
    assert len(found) == 1, f"{len(found)} objects {kind} {namespace}/{name}"
    return found[0]


def pod_specs(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Name and pod spec of everything that makes pods."""
    for manifest in manifests:
        name = f"{manifest['kind']}/{manifest['metadata']['name']}"
        if manifest["kind"] == "Pod":
            yield name, manifest["spec"]
        elif manifest["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            yield name, manifest["spec"]["template"]["spec"]


def containers(spec: Manifest) -> list[Manifest]:
    """All containers of a pod spec."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container: Manifest) -> dict[str, str]:
    """Plain environment variables of a container."""
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def operator_settings(monkeypatch: pytest.MonkeyPatch, manifests: list[Manifest]) -> Settings:
    """What the operator makes of the environment of its container."""
    (deployment,) = (m for m in of_kind(manifests, "Deployment") if m["metadata"]["labels"]["app.kubernetes.io/component"] == "operator")
    variables = environment(deployment["spec"]["template"]["spec"]["containers"][0])
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FINETUNE_OPERATOR_IDENTITY", "pod-0")
    known = {f"FINETUNE_OPERATOR_{name.upper()}" for name in Settings.model_fields}
    assert {name for name in variables if name.startswith("FINETUNE_OPERATOR_")} <= known, "variables the operator does not read"
    return Settings()

"""Least privilege: Pod Security restricted for every pod, no Secret but one for the operator."""

from __future__ import annotations

from collections.abc import Iterator

from tests.unit.helm.chart import Manifest, Values, containers, of_kind, pod_specs

ALLOWED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "downwardAPI", "csi", "ephemeral"}


def violations(spec: Manifest) -> Iterator[str]:
    """What Pod Security ``restricted`` (v1.32) has against a pod spec."""
    yield from (key for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key))
    yield from (f"volume {v['name']}" for v in spec.get("volumes", []) if not set(v) - {"name"} <= ALLOWED_VOLUMES)
    for container in containers(spec):
        yield from (f"{container['name']}: {what}" for what in _forbidden(container, spec.get("securityContext", {})))


def _forbidden(container: Manifest, pod: Manifest) -> Iterator[str]:
    context = {**pod, **container.get("securityContext", {})}
    rules = {
        "allowPrivilegeEscalation": context.get("allowPrivilegeEscalation") is False,
        "capabilities": context.get("capabilities") == {"drop": ["ALL"]},
        "privileged": not context.get("privileged"),
        "runAsNonRoot": context.get("runAsNonRoot") is True,
        "runAsUser": context.get("runAsUser") != 0,
        "seccompProfile": context.get("seccompProfile", {}).get("type") in ("RuntimeDefault", "Localhost"),
        "hostPort": not any(port.get("hostPort") for port in container.get("ports", [])),
    }
    yield from (name for name, kept in rules.items() if not kept)


def test_every_pod_is_restricted(manifests: list[Manifest]) -> None:
    """Pod Security restricted holds for the operator, the store, the hooks and the test."""
    for name, spec in pod_specs(manifests):
        assert list(violations(spec)) == [], name


def test_every_container_is_bounded_and_read_only(manifests: list[Manifest]) -> None:
    """No container writes into its image or takes memory without limit."""
    for name, spec in pod_specs(manifests):
        for container in containers(spec):
            assert container["securityContext"]["readOnlyRootFilesystem"] is True, name
            assert container["resources"]["limits"]["memory"], name
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, name


def test_api_credentials_only_where_they_are_used(manifests: list[Manifest]) -> None:
    """The store speaks to no API server, so it has no token."""
    for name, spec in pod_specs(manifests):
        uses_api = spec.get("serviceAccountName") is not None
        assert spec.get("automountServiceAccountToken", True) == uses_api, name


def test_one_secret_by_name_and_no_other(case: tuple[str, Values], manifests: list[Manifest]) -> None:
    """No role lets anybody list, watch or create Secrets, or touch one that is not named."""
    for role in of_kind(manifests, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert "*" not in {*rule["resources"], *rule["verbs"], *rule["apiGroups"]}, role["metadata"]["name"]
            if not {"secrets", "*"} & set(rule["resources"]):
                continue
            own = "cert-manager-made" if case[0] == "own-certificate" else f"{role['metadata']['name'].removesuffix('-own')}-tls"
            assert role["kind"] == "Role"
            assert rule["resources"] == ["secrets"]
            assert rule["resourceNames"] == [own]
            assert set(rule["verbs"]) <= {"get", "update", "patch"}


def test_operator_cannot_grant_or_impersonate(manifests: list[Manifest]) -> None:
    """No right that would be as good as any other right."""
    powerful = {
        "roles",
        "rolebindings",
        "clusterroles",
        "clusterrolebindings",
        "serviceaccounts",
        "pods/exec",
        "nodes",
        "customresourcedefinitions",
    }
    for role in of_kind(manifests, "Role", "ClusterRole"):
        for rule in role["rules"]:
            assert not powerful & set(rule["resources"])
            assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])

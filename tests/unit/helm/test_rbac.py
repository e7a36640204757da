"""The operator's roles are those of its own table, no more and no less."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

from finetune_operator.cluster.rbac import CLUSTER, JOB_NAMESPACES, OWN_NAMESPACE, Right
from tests.unit.helm.chart import MATRIX, NAMESPACE, Helm, Manifest, of_kind, one

Rights = set[tuple[str, str, str, tuple[str, ...]]]
"""(group, resource, verb, names)."""


def of_table(rights: Iterable[Right], renamed: Mapping[str, str] | None = None) -> Rights:
    """The rights in a part of the operator's table, with the names the chart fills in."""
    names = renamed or {}
    return {(r.group, r.resource, verb, tuple(names.get(name, name) for name in r.names)) for r in rights for verb in r.verbs}


def of_role(role: Manifest) -> Rights:
    """The rights in a rendered role."""
    return {
        (group, resource, verb, tuple(rule.get("resourceNames", ())))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def of_operator(manifests: list[Manifest], kind: str) -> dict[str, tuple[str, Rights]]:
    """Rights the operator's ServiceAccount has by bindings of a kind: namespace and rights by the binding's name and namespace."""
    found = {}
    for binding in of_kind(manifests, f"{kind}Binding"):
        if binding["metadata"]["labels"]["app.kubernetes.io/component"] != "operator":
            continue
        (subject,) = binding["subjects"]
        assert subject == {"kind": "ServiceAccount", "name": "finetune-operator", "namespace": NAMESPACE}
        assert binding["roleRef"]["kind"] == kind
        namespace = binding["metadata"].get("namespace", "")
        role = one(manifests, kind, binding["roleRef"]["name"], namespace or None)
        found[f"{namespace}/{binding['metadata']['name']}"] = namespace, of_role(role)
    return found


def test_one_cluster_role_by_default(default_manifests: list[Manifest]) -> None:
    """Jobs of all namespaces, and a Role for the operator's own objects."""
    ((_, cluster),) = of_operator(default_manifests, "ClusterRole").values()
    assert cluster == of_table((*JOB_NAMESPACES, *CLUSTER))
    ((namespace, own),) = of_operator(default_manifests, "Role").values()
    assert namespace == NAMESPACE
    assert own == of_table(OWN_NAMESPACE)


@pytest.mark.parametrize("cluster_reads", [True, False])
def test_namespaced_mode_is_roles_and_one_small_cluster_role(helm: Helm, cluster_reads: bool) -> None:
    """Job rights in the job namespaces only; the ClusterRole holds no right on a namespace's objects and can be left out."""
    values = {"rbac": {"namespaced": True, "clusterReads": cluster_reads}, "jobNamespaces": ["team-a", "team-b"]}
    manifests = helm.template(values)
    cluster = [rights for _, rights in of_operator(manifests, "ClusterRole").values()]
    assert cluster == ([of_table(CLUSTER)] if cluster_reads else [])
    roles = of_operator(manifests, "Role")
    assert roles.pop(f"{NAMESPACE}/finetune-operator-own") == (NAMESPACE, of_table(OWN_NAMESPACE))
    assert sorted(roles.values()) == [(namespace, of_table(JOB_NAMESPACES)) for namespace in (NAMESPACE, "team-a", "team-b")]


def test_names_follow_the_release(helm: Helm) -> None:
    """The Lease and the Secret the roles name are those the operator is told of."""
    manifests = helm.template({"fullnameOverride": "ml-finetune", "serviceAccount": {"name": "finetune-operator"}})
    ((_, own),) = of_operator(manifests, "Role").values()
    assert own == of_table(
        OWN_NAMESPACE, {"finetune-operator": "ml-finetune-operator", "finetune-operator-tls": "ml-finetune-operator-tls"}
    )


def test_a_certificate_made_elsewhere_is_only_read(helm: Helm) -> None:
    """With tls.existingSecret nothing of the operator writes a Secret."""
    ((_, own),) = of_operator(helm.template(MATRIX["own-certificate"]), "Role").values()
    assert {verb for _, resource, verb, names in own if resource == "secrets" and names == ("cert-manager-made",)} == {"get"}


def test_roles_of_ones_own(helm: Helm) -> None:
    """rbac.create=false leaves all of it to the administrator."""
    manifests = helm.template({"rbac": {"create": False}})
    assert of_operator(manifests, "Role") == of_operator(manifests, "ClusterRole") == {}

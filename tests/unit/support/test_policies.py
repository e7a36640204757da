"""The stand-in that puts NetworkPolicies into force: what a policy allows becomes rules, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.policies import Cluster, Pod, matches, render

RANK = Pod("team", {"finetune.dev/job": "a"}, "10.0.0.1", {"metrics": 9090})
OTHER = Pod("team", {}, "10.0.0.2", {})
STORE = Pod("system", {"app": "store"}, "10.0.0.3", {"s3": 9000})
CLUSTER = Cluster(
    [RANK, OTHER, STORE], {"team": {"kubernetes.io/metadata.name": "team"}, "system": {"kubernetes.io/metadata.name": "system"}}
)
RANKS = {"matchExpressions": [{"key": "finetune.dev/job", "operator": "Exists"}]}


def policy(**spec: Any) -> dict[str, Any]:
    """A policy for ranks in namespace team."""
    return {"metadata": {"namespace": "team"}, "spec": {"podSelector": RANKS, **spec}}


def rules(*policies: dict[str, Any], chain: str) -> list[str]:
    """Rules of a chain after the one for replies."""
    start = f"-A {chain} "
    return [line.removeprefix(start) for line in render(policies, CLUSTER).splitlines() if line.startswith(start)][1:]


def test_what_no_policy_selects_is_free() -> None:
    assert rules(chain="FINETUNE-INGRESS") == rules(chain="FINETUNE-EGRESS") == []
    assert not any("10.0.0.2" in rule for rule in rules(policy(policyTypes=["Ingress"]), chain="FINETUNE-INGRESS"))


def test_a_direction_without_rules_is_closed() -> None:
    closed = policy(policyTypes=["Ingress", "Egress"], egress=[])
    assert rules(closed, chain="FINETUNE-INGRESS") == ["-d 10.0.0.1 -j REJECT"]
    assert rules(closed, chain="FINETUNE-EGRESS") == ["-s 10.0.0.1 -j REJECT"]


def test_peers_and_ports() -> None:
    """A named port is that of the pod that is called; without peers everyone may, without ports anything."""
    spec = policy(
        policyTypes=["Ingress", "Egress"],
        ingress=[{"from": [{"podSelector": {}}]}, {"ports": [{"port": "metrics"}]}],
        egress=[
            {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "system"}}}], "ports": [{"port": "s3"}]},
            {"ports": [{"port": 53, "protocol": "UDP"}]},
        ],
    )
    assert rules(spec, chain="FINETUNE-INGRESS") == [
        "-d 10.0.0.1 -s 10.0.0.1  -j RETURN",
        "-d 10.0.0.1 -s 10.0.0.2  -j RETURN",
        "-d 10.0.0.1 -p tcp --dport 9090 -j RETURN",
        "-d 10.0.0.1 -j REJECT",
    ]
    assert rules(spec, chain="FINETUNE-EGRESS") == [
        "-s 10.0.0.1 -d 10.0.0.3 -p tcp --dport 9000 -j RETURN",
        "-s 10.0.0.1 -p udp --dport 53 -j RETURN",
        "-s 10.0.0.1 -j REJECT",
    ]


@pytest.mark.parametrize(
    ("term", "selected"),
    [
        ({"key": "a", "operator": "In", "values": ["1"]}, True),
        ({"key": "a", "operator": "NotIn", "values": ["1"]}, False),
        ({"key": "a", "operator": "Exists"}, True),
        ({"key": "b", "operator": "DoesNotExist"}, True),
    ],
)
def test_selectors(term: dict[str, Any], selected: bool) -> None:
    assert matches({"matchExpressions": [term]}, {"a": "1"}) is selected
    assert not matches({"matchLabels": {"a": "2"}, "matchExpressions": [term]}, {"a": "1"})

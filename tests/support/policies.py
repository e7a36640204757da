"""NetworkPolicies in force on the local node, whose bridge plugin knows none: rules of iptables made from policies and pods.

A stand-in for a network plugin, for the tests alone. What a policy means is that of the Kubernetes API reference (NetworkPolicySpec):
pods that a policy selects for a direction may do in it only what some policy allows; replies are always allowed, and so is what comes from
the pod's own node. Connections that are not allowed are rejected, so that whoever makes them fails at once.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tests.support.platform import Kubectl

CHAINS: Final = {"Egress": "FINETUNE-EGRESS", "Ingress": "FINETUNE-INGRESS"}
HOOKS: Final = (("INPUT", "Egress"), ("FORWARD", "Ingress"), ("FORWARD", "Egress"))
"""Where packets of pods pass: to the node itself, and to other pods, where both ends must allow them. Each is put before what is there."""
REFRESH_SECONDS: Final = 0.5
ENDED: Final = ("Succeeded", "Failed")
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Pod:
    """What policies know of a pod."""

    namespace: str
    labels: Labels
    address: str
    ports: Mapping[str, int]
    """By name."""


def matches(selector: Mapping[str, Any], labels: Labels) -> bool:
    """Whether a label selector selects; an empty one selects everything."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(_holds(term, labels) for term in selector.get("matchExpressions", []))


def _holds(term: Mapping[str, Any], labels: Labels) -> bool:
    value = labels.get(term["key"])
    match term["operator"]:
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "In":
            return value in term["values"]
        case "NotIn":
            return value not in term["values"]
        case other:
            raise ValueError(f"operator {other} of a label selector is not known")


@dataclass(frozen=True)
class Cluster:
    """Pods and the labels of their namespaces."""

    pods: Sequence[Pod]
    namespaces: Mapping[str, Labels]

    def peers(self, peer: Mapping[str, Any], namespace: str) -> list[Pod]:
        """Pods that an entry of from or to names, in a policy of ``namespace``."""
        if "ipBlock" in peer:
            raise ValueError("ipBlock: not made into rules here; the chart has none")
        within = {namespace}
        if "namespaceSelector" in peer:
            within = {name for name, labels in self.namespaces.items() if matches(peer["namespaceSelector"], labels)}
        return [pod for pod in self.pods if pod.namespace in within and matches(peer.get("podSelector", {}), pod.labels)]


def render(policies: Sequence[Mapping[str, Any]], cluster: Cluster) -> str:
    """Render both chains as input of ``iptables-restore --noflush``, which puts them into force at once."""
    rules = [f"-A {chain} -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN" for chain in CHAINS.values()]
    for direction, chain in CHAINS.items():
        for pod in cluster.pods:
            chosen = [policy for policy in policies if _selects(policy, pod, direction)]
            own = f"-A {chain} {'-d' if direction == 'Ingress' else '-s'} {pod.address}"
            rules += [f"{own} {allowed} -j RETURN" for policy in chosen for allowed in _allowed(policy, pod, direction, cluster)]
            if chosen:
                rules.append(f"{own} -j REJECT")
    return "\n".join(["*filter", *(f":{chain} - [0:0]" for chain in CHAINS.values()), *rules, "COMMIT", ""])


def _allowed(policy: Mapping[str, Any], pod: Pod, direction: str, cluster: Cluster) -> Iterator[str]:
    """What a policy allows a pod, each as words of a rule."""
    key, flag = ("from", "-s") if direction == "Ingress" else ("to", "-d")
    for rule in policy["spec"].get(direction.lower()) or []:
        ends: list[Pod | None] = [None]
        if rule.get(key):
            ends = [found for peer in rule[key] for found in cluster.peers(peer, policy["metadata"]["namespace"])]
        for end in ends:
            # Names of ports are those of the pod that is called.
            for port in _ports(rule, pod if direction == "Ingress" else end):
                yield f"{flag} {end.address} {port}" if end is not None else port


def _selects(policy: Mapping[str, Any], pod: Pod, direction: str) -> bool:
    spec = policy["spec"]
    kinds = spec.get("policyTypes", ["Ingress"])
    return direction in kinds and policy["metadata"]["namespace"] == pod.namespace and matches(spec["podSelector"], pod.labels)


def _ports(rule: Mapping[str, Any], called: Pod | None) -> Iterator[str]:
    if not rule.get("ports"):
        yield ""
    for entry in rule.get("ports") or []:
        port = entry.get("port")
        if isinstance(port, str):
            number = called.ports.get(port) if called is not None else None
            if number is None:
                continue
            port = number
        yield f"-p {entry.get('protocol', 'TCP').lower()}" + (f" --dport {port}" if port is not None else "")


def read_cluster(kubectl: Kubectl) -> Cluster:
    """Pods with an address of their own, and namespaces, as they are now."""
    namespaces = {item["metadata"]["name"]: item["metadata"].get("labels", {}) for item in kubectl.items("namespaces")}
    return Cluster([_pod(item) for item in _everywhere(kubectl, "pods") if _is_connected(item)], namespaces)


def _everywhere(kubectl: Kubectl, kind: str) -> list[dict[str, Any]]:
    return list(json.loads(kubectl("get", kind, "--all-namespaces", "-o", "json"))["items"])


def _is_connected(pod: Mapping[str, Any]) -> bool:
    status = pod["status"]
    return bool(status.get("podIP")) and status.get("phase") not in ENDED and not pod["spec"].get("hostNetwork")


def _pod(item: Mapping[str, Any]) -> Pod:
    ports = {port["name"]: port["containerPort"] for box in item["spec"]["containers"] for port in box.get("ports", []) if "name" in port}
    metadata = item["metadata"]
    return Pod(metadata["namespace"], metadata.get("labels", {}), item["status"]["podIP"], ports)


class Enforcer:
    """Keeps the rules in step with policies and pods until it is closed; a pod is without rules for about half a second."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True)
        self.error: Exception | None = None
        """Why it stopped by itself."""

    def start(self) -> None:
        """Put the rules into force and keep them."""
        self._write()
        for hook, direction in HOOKS:
            _iptables("-I", hook, "-j", CHAINS[direction])
        self._thread.start()

    def stop(self) -> None:
        """Take all rules away."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(60)
        for hook, direction in HOOKS:
            subprocess.run(["iptables", "-w", "-D", hook, "-j", CHAINS[direction]], capture_output=True, check=False)
        for chain in CHAINS.values():
            subprocess.run(["iptables", "-w", "-F", chain], capture_output=True, check=False)
            subprocess.run(["iptables", "-w", "-X", chain], capture_output=True, check=False)

    def _keep(self) -> None:
        while not self._ended.wait(REFRESH_SECONDS):
            try:
                self._write()
            except (AssertionError, OSError, subprocess.SubprocessError) as error:
                self.error = error
                return

    def _write(self) -> None:
        document = render(_everywhere(self._kubectl, "networkpolicies"), read_cluster(self._kubectl))
        subprocess.run(["iptables-restore", "-w", "--noflush"], input=document, text=True, check=True, capture_output=True)


def _iptables(*words: str) -> str:
    return subprocess.run(["iptables", "-w", *words], check=True, capture_output=True, text=True).stdout


@contextlib.contextmanager
def enforced(kubectl: Kubectl) -> Iterator[Enforcer]:
    """Policies of the whole cluster in force within the block."""
    enforcer = Enforcer(kubectl)
    try:
        enforcer.start()
        yield enforcer
        assert enforcer.error is None, enforcer.error
    finally:
        enforcer.stop()

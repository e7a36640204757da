"""What nodes have of a resource, and how much of it pods hold, as the scheduler counts it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from finetune_api.quantities import number_of

_OVER: Final = frozenset({"Succeeded", "Failed"})
"""Phases of pods that hold nothing any more."""
Document = Mapping[str, Any]


def allocatable(node: Document, resource: str) -> int:
    """How much of a resource a node has for pods."""
    return _count((node.get("status") or {}).get("allocatable") or {}, resource)


def takes_pods(node: Document) -> bool:
    """Whether a node is ready and not cordoned; taints do not count."""
    conditions = {each["type"]: each["status"] for each in (node.get("status") or {}).get("conditions") or ()}
    return not (node.get("spec") or {}).get("unschedulable") and conditions.get("Ready") == "True"


def held(pods: Iterable[Document], resource: str) -> Counter[str]:
    """How much of a resource the pods of each node hold."""
    sums: Counter[str] = Counter()
    for pod in pods:
        if (pod.get("status") or {}).get("phase") not in _OVER:
            sums[pod["spec"].get("nodeName") or ""] += _asked(pod["spec"], resource)
    return sums


def _asked(pod: Document, resource: str) -> int:
    """What a pod holds: its containers together, or its largest init container."""
    own = sum(_of_container(each, resource) for each in pod.get("containers") or ())
    return max([own, *(_of_container(each, resource) for each in pod.get("initContainers") or ())])


def _of_container(container: Document, resource: str) -> int:
    resources = container.get("resources") or {}
    return _count({**(resources.get("limits") or {}), **(resources.get("requests") or {})}, resource)


def _count(quantities: Mapping[str, str], resource: str) -> int:
    return int(number_of(str(quantities.get(resource, "0"))))

"""What a cluster lacks for a pod, in front of what its scheduler says of every node."""

from __future__ import annotations

import re

_REASON = re.compile(
    r"(?P<nodes>\d+) (?:Insufficient (?P<resource>[^\s,]*[^\s,.])"
    r"|node\(s\) had untolerated taint (?P<taint>\{[^}]*\})"
    r"|node\(s\) (?P<selector>didn't match Pod's node affinity/selector)"
    r"|node\(s\) (?P<cordoned>were unschedulable))"
)


def describe_missing(message: str) -> str:
    """The scheduler's message with what is missing first; the message alone where nothing is recognised.

    ``0/3 nodes are available: 2 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint {gpu: true}.`` becomes ``Missing:
    nvidia.com/gpu (2 nodes), a toleration of {gpu: true} (1 node). 0/3 nodes are available: ...``
    """
    wants: dict[str, int] = {}
    for found in _REASON.finditer(message.partition("preemption:")[0]):
        want = _want(found)
        wants[want] = wants.get(want, 0) + int(found["nodes"])
    if not wants:
        return message
    parts = ", ".join(f"{want} ({nodes} node{'s' if nodes > 1 else ''})" for want, nodes in wants.items())
    return f"Missing: {parts}. {message}"


def _want(found: re.Match[str]) -> str:
    if found["resource"]:
        return str(found["resource"])
    if found["taint"]:
        return f"a toleration of {found['taint']}"
    return "the labels of resources.nodeSelector" if found["selector"] else "nodes that are not cordoned"

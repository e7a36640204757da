"""Which other object of a namespace has the same displayName, and was there before (D-12, J-02)."""

from __future__ import annotations

from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import InvalidError
from finetune_operator.cluster.resources import Resource
from finetune_operator.plan.observed import OwnObject

_FIELD = "spec.displayName"


async def older_namesake(client: Client, resource: Resource, own: OwnObject) -> str | None:
    """Name of the oldest object with the displayName of ``own``; None where that is its own, or it has none.

    Of two of the same second the first by name counts as older. Where the CRD is of a version before, such fields cannot be selected by:
    then nothing is known.
    """
    shown = own.spec.get("displayName")
    if not shown:
        return None
    try:
        found = await client.list(resource, own.namespace, field_selector=f"{_FIELD}={_escaped(str(shown))}")
    except InvalidError:
        return None
    oldest = min((each["metadata"] for each in found), key=lambda each: (each["creationTimestamp"], each["name"]), default=None)
    return None if oldest is None or oldest["uid"] == own.uid else str(oldest["name"])


def _escaped(value: str) -> str:
    """A value of a field selector, as Kubernetes reads it."""
    return value.translate({ord(sign): f"\\{sign}" for sign in "\\,="})

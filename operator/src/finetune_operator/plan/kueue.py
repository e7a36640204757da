"""Kueue's names, and its Workload as far as it is looked at. Kueue's objects are read, never written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.models.spec import Resources

KUEUE = "kueue.x-k8s.io"
LABEL_QUEUE = f"{KUEUE}/queue-name"
LABEL_QUEUE_PRIORITY = f"{KUEUE}/priority-class"
LABEL_JOB_UID = f"{KUEUE}/job-uid"
"""On a Workload: the uid of the Job it stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueEntry:
    """Kueue's Workload of a run."""

    quota_reserved: bool = False
    evicted: str = ""
    """Why the group was put back; empty if it was not."""
    message: str = ""
    """What Kueue says to it."""

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> QueueEntry:
        """Read a Workload (v1beta1 or v1beta2: the conditions are the same)."""
        found = {c["type"]: c for c in (manifest.get("status") or {}).get("conditions") or ()}
        reserved, evicted = found.get("QuotaReserved", {}), found.get("Evicted", {})
        is_evicted, is_reserved = evicted.get("status") == "True", reserved.get("status") == "True"
        told = evicted if is_evicted else found.get("Admitted", {}) if is_reserved else reserved
        return cls(
            quota_reserved=is_reserved,
            evicted=str(evicted.get("reason") or "Evicted") if is_evicted else "",
            message=str(told.get("message", "")),
        )


def queue_labels(resources: Resources) -> dict[str, str]:
    """Labels by which Kueue takes a Job into a queue; none for a job without one."""
    if resources.queue is None:
        return {}
    priority = {LABEL_QUEUE_PRIORITY: resources.queue_priority_class} if resources.queue_priority_class else {}
    return {LABEL_QUEUE: resources.queue, **priority}

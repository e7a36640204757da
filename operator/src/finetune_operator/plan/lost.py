"""Lost pods: on a node that stopped answering, they never end by themselves and nobody can end them."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_operator.plan.failure import NODE_DISRUPTIONS
from finetune_operator.plan.observed import Pod


def lost_at(pod: Pod, after_seconds: float) -> datetime | None:
    """When a pod counts as lost if its containers have not ended by then; None for one that nobody is ending.

    An evicted pod whose node is not heard of (the node controller took its Ready away) is given ``after_seconds``; any other one its whole
    grace and then ``after_seconds``: a reachable pod may still be saving.
    """
    if pod.ended:
        return None
    moments = []
    if pod.deletion_time is not None:
        moments.append(pod.deletion_time)
    if pod.disruption in NODE_DISRUPTIONS and pod.disrupted_at is not None and not pod.ready:
        moments.append(pod.disrupted_at)
    return min(moments) + timedelta(seconds=after_seconds) if moments else None


def is_lost(pod: Pod, now: datetime, after_seconds: float) -> bool:
    """Whether a pod is lost."""
    moment = lost_at(pod, after_seconds)
    return moment is not None and now >= moment

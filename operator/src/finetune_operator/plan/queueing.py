"""A run that waits in a queue of Kueue, or was put back into it.

Kueue owns the Job's ``suspend`` and the node selectors it injects; nothing here ever changes a Job. A preempted group stops with a
checkpoint (SIGTERM) and starts again when it is admitted, inside the same run. Pause and stop delete the Job, which gives the quota back
when its pods end.
"""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.models.status import ConditionType, Phase
from finetune_operator.plan import conditions
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.kueue import QueueEntry
from finetune_operator.plan.observed import Pod, Workload

QUEUE_LOOK_SECONDS = 30.0
"""A Workload is not watched (its kind may not exist): while a run waits it is looked at this often. The Job's own events come at once."""
PREEMPTED = "Preempted"


def show_queued(draft: Draft, workload: Workload, pods: Sequence[Pod]) -> None:
    """Phase of a run whose Job is suspended: it waits, or it was put back."""
    reason, message = _why(workload, draft.observed.queue_entry)
    ending = sum(1 for pod in pods if not pod.ended)
    if ending:
        message = f"{message} {ending} pods save a checkpoint and end."
    before = conditions.find(draft.status.conditions, ConditionType.ADMITTED)
    if before is None or before.reason != reason:
        put_back = before is not None and before.status == "True"
        draft.say(reason, message, kind="Warning" if put_back else "Normal", key=f"{draft.status.run}/{draft.status.attempt_count}")
    draft.condition(ConditionType.ADMITTED, "False", reason, message)
    draft.show(Phase.QUEUED, reason, message)
    draft.wake_in(QUEUE_LOOK_SECONDS)


def _why(workload: Workload, entry: QueueEntry | None) -> tuple[str, str]:
    """Reason and message: from Kueue's Workload, else from the Job alone."""
    queue = f"Queue {workload.queue}" if workload.queue else "The queue"
    if entry is None and workload.queue is None:
        return "JobSuspended", f"Job {workload.name} was suspended from outside, by somebody or by a queue manager."
    if entry is None:
        return "AwaitingQueue", f"{queue} does not know the run yet: Kueue must be installed, and the LocalQueue be in this namespace."
    said = f": {entry.message}" if entry.message else "."
    if entry.evicted:
        reason = PREEMPTED if entry.evicted == PREEMPTED else "Evicted"
        return reason, f"{queue} took the group's place ({entry.evicted}); it goes on from its checkpoint when it is admitted again{said}"
    if entry.quota_reserved:
        return "AwaitingAdmission", f"{queue} has reserved quota; its admission checks are not done{said}"
    return "AwaitingQuota", f"{queue} has no quota for the run yet{said}"

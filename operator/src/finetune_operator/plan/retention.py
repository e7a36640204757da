"""What a cancelled job wrote stays for ``output.retentionDays``, then a ``cleanup`` pod removes it, unless it was promoted."""

from __future__ import annotations

from datetime import datetime, timedelta

from finetune_api.constants import ANNOTATION_PROMOTED
from finetune_api.defaults import BASE
from finetune_api.models.status import Artifacts, CheckpointsStatus, ConditionType, Phase
from finetune_operator.plan import conditions
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.observed import JobObject, Workload, parse_time
from finetune_operator.plan.verbs import build_verb, delete_verb, verb_answer

KEEPING_ARTIFACTS = "KeepingArtifacts"
"""Reason of Reconciling=False: nothing to do until the retention is over."""
PROMOTED = "ArtifactsPromoted"
_TRY_AGAIN = timedelta(hours=1)
"""A store that is away is asked again after this time."""
_LOOK_AGAIN_SECONDS = 86400.0


def is_retained(job: JobObject) -> bool:
    """Whether a job's objects are still to be kept for a time, or removed after it."""
    status = job.status
    return status.phase is Phase.CANCELLED and status.run > 0 and status.artifacts_removed_at is None


def rests_for(job: JobObject, now: datetime) -> float | None:
    """Seconds in which a cancelled job needs no look; None: look now."""
    status = job.status
    if not is_retained(job) or job.deleted_at is not None or status.observed_generation != job.generation:
        return None
    reconciling = conditions.find(status.conditions, ConditionType.RECONCILING)
    reason = reconciling.reason if reconciling is not None else None
    promoted = ANNOTATION_PROMOTED in job.annotations
    if reason == PROMOTED and promoted:
        return _LOOK_AGAIN_SECONDS
    expires = parse_time(status.artifacts_expire_at)
    if reason == KEEPING_ARTIFACTS and not promoted and expires is not None and now < expires:
        return (expires - now) / timedelta(seconds=1)
    return None


def set_expiry(draft: Draft) -> datetime:
    """Note until when the job's objects are kept: from its end on, however long it had been paused before."""
    end = parse_time(draft.status.finished_at) or draft.now
    expires = end + timedelta(days=_retention_days(draft.job))
    draft.change(artifacts_expire_at=conditions.format_time(expires))
    return expires


def _retention_days(job: JobObject) -> int:
    path = "output.retentionDays"
    written = (job.spec.get("output") or {}).get("retentionDays")
    resolved = job.status.resolved.get(path)
    return int(written if written is not None else resolved.value if resolved is not None else BASE[path])


def retain(draft: Draft) -> None:
    """Keep or remove what a cancelled job wrote; for a job that :func:`is_retained`."""
    cleanup = draft.observed.verbs.get("cleanup")
    if ANNOTATION_PROMOTED in draft.job.annotations and cleanup is None:
        draft.change(artifacts_expire_at=None)
        draft.condition(ConditionType.RECONCILING, "False", PROMOTED, "What the job wrote was promoted and is kept.")
        draft.wake_in(_LOOK_AGAIN_SECONDS)
        return
    expires = set_expiry(draft)
    if draft.now < expires and cleanup is None:
        message = f"What the job wrote is kept until {draft.status.artifacts_expire_at}."
        draft.condition(ConditionType.RECONCILING, "False", KEEPING_ARTIFACTS, message)
        draft.wake_at(expires)
    elif not draft.observed.namespace_terminating:
        _remove(draft, cleanup)


def _remove(draft: Draft, cleanup: Workload | None) -> None:
    """Have the store cleaned."""
    draft.condition(ConditionType.RECONCILING, "True", "RemovingArtifacts", f"Objects under {draft.status.output_uri} are being deleted.")
    if cleanup is not None and cleanup.complete:
        draft.change(
            artifacts_removed_at=draft.now_text, artifacts=Artifacts(), checkpoints=CheckpointsStatus(saved=draft.status.checkpoints.saved)
        )
        draft.drop_condition(ConditionType.CHECKPOINT_READY)
        draft.say("ArtifactsRemoved", f"output.retentionDays is over: everything under {draft.status.output_uri} was deleted.")
        draft.wake_in(0)
    elif cleanup is not None:
        _wait_for(draft, cleanup)
    elif draft.observed.last_run is None:
        draft.change(artifacts_removed_at=draft.now_text)
        message = f"Objects stay behind under {draft.status.output_uri}: the ConfigMap of the job's last run is gone."
        draft.say("ArtifactsNotRemoved", message, kind="Warning")
        draft.wake_in(0)
    else:
        config = draft.observed.last_run.config
        draft.do(build_verb(draft.job, config, "cleanup", draft.settings, deadline_seconds=config.spec.output.cleanup_timeout_seconds))


def _wait_for(draft: Draft, cleanup: Workload) -> None:
    """A cleanup under way or failed; a failed one makes room for the next after a while."""
    if not cleanup.failed:
        return
    answer = verb_answer(draft.observed, cleanup)
    why = answer.message if answer is not None and answer.message else cleanup.message or "the cleanup pod failed"
    draft.say("ArtifactsNotRemoved", f"{why} It is tried again.", kind="Warning", key=cleanup.uid)
    again = (cleanup.created_at or draft.now) + _TRY_AGAIN
    if draft.now >= again:
        delete_verb(draft, cleanup)
    draft.wake_at(max(again, draft.now + timedelta(seconds=1)))

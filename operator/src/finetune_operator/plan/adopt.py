"""Taking over a run that exists although the status does not know it: its creator ended between creating it and noting it."""

from __future__ import annotations

from dataclasses import replace

from finetune_api.models.status import FINAL_PHASES, AttemptStatus
from finetune_api.resolve import identity_digest
from finetune_operator.plan.conditions import format_time
from finetune_operator.plan.desire import Desire, desire_of
from finetune_operator.plan.names import ANNOTATION_START_REASON
from finetune_operator.plan.observed import JobObject, LastRun, Workload
from finetune_operator.plan.usage import at_rate_of


def may_have_unnoted_run(job: JobObject) -> bool:
    """Whether the next run could exist unnoted. Not asked of a new job that shall run: creating its run finds out."""
    status = job.status
    if status.phase in FINAL_PHASES or (status.attempts and status.attempts[-1].ended_at is None):
        return False
    posted = status.progress is not None and status.progress.run > status.run
    fresh = status.observed_generation == 0 and desire_of(job) is Desire.RUN
    return posted or not fresh


def adopt_run(job: JobObject, workload: Workload, made_from: LastRun | None) -> JobObject:
    """The job as if its status had been written when the run was created."""
    status = job.status
    run = status.run + 1
    assert workload.created_at is not None, "every stored object has a creation time"
    started = format_time(workload.created_at)
    reason = workload.annotations.get(ANNOTATION_START_REASON, "Created")
    changes: dict[str, object] = {
        "run": run,
        "last_replicas": workload.completions,
        "attempts": [*status.attempts, AttemptStatus(run=run, reason=reason, started_at=started)][-10:],
        "attempt_count": status.attempt_count + 1,
        "started_at": status.started_at or started,
        "finished_at": None,
        "failure": None,
        "retry": status.retry.model_copy(update={"next_start_at": None}),
    }
    if made_from is not None:
        changes["output_uri"] = made_from.config.store.uri
        changes["usage"] = at_rate_of(status.usage, made_from.config)
        changes["identity_digest"] = status.identity_digest or identity_digest(made_from.config.spec)
    return replace(job, status=status.model_copy(update=changes), adopted=True)

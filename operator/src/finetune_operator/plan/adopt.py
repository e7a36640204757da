"""Taking over a run that exists although the status does not know it: its creator ended between creating it and noting it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from finetune_api.models.status import AttemptStatus
from finetune_api.resolve import identity_digest
from finetune_operator.plan.conditions import format_time
from finetune_operator.plan.observed import JobObject, LastRun


def adopt_run(job: JobObject, run: int, replicas: int, reason: str, made_from: LastRun | None, now: datetime) -> JobObject:
    """The job as if its status had been written when the run was created."""
    status = job.status
    attempt = AttemptStatus(run=run, reason=reason, started_at=format_time(now))
    changes: dict[str, object] = {
        "run": run,
        "last_replicas": replicas,
        "attempts": [*status.attempts, attempt][-10:],
        "attempt_count": status.attempt_count + 1,
        "started_at": status.started_at or format_time(now),
        "finished_at": None,
        "retry": status.retry.model_copy(update={"next_start_at": None}),
    }
    if made_from is not None:
        changes["output_uri"] = made_from.config.store.uri
        changes["identity_digest"] = status.identity_digest or identity_digest(made_from.config.spec)
    return replace(job, status=status.model_copy(update=changes))

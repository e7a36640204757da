"""A plan in the making: the one mutable thing in :mod:`finetune_operator.plan`, alive for one call of ``plan``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from finetune_api.models.status import AttemptStatus, Condition, FineTuneJobStatus, Phase
from finetune_operator.plan import conditions
from finetune_operator.plan.decision import Event, Operation, Plan
from finetune_operator.plan.desire import Desire, wanted
from finetune_operator.plan.observed import JobObject, Observed
from finetune_operator.plan.report import Report, read_report
from finetune_operator.settings import PlanSettings


class Draft:
    """Collects operations, status, events and wake-up times while the decision is made."""

    def __init__(self, observed: Observed, now: datetime, settings: PlanSettings) -> None:
        self.observed = observed
        self.now = now
        self.settings = settings
        self.status: FineTuneJobStatus = observed.job.status
        self.report: Report = read_report(self.status.progress) if self._progress_is_current() else Report()
        """What the trainer of the current run said; empty when its posts belong to an earlier run."""
        self.phase: Phase = self.status.phase
        self.reason: str = self.status.reason or ""
        self.message: str = ""
        self._operations: list[Operation] = []
        self._events: list[Event] = []
        self._wake: float | None = None

    @property
    def job(self) -> JobObject:
        """The job as read."""
        return self.observed.job

    @property
    def now_text(self) -> str:
        """The time as status fields have it."""
        return conditions.format_time(self.now)

    def _progress_is_current(self) -> bool:
        progress = self.status.progress
        return progress is not None and progress.run == self.status.run

    @property
    def desire(self) -> Desire:
        """What is wanted, with what was decided in this very look."""
        return wanted(self.job.spec, self.status.hold)

    # --- attempts ---

    @property
    def attempt(self) -> AttemptStatus | None:
        """The attempt under way: the last one, unless its end is recorded."""
        last = self.last_attempt
        return last if last is not None and last.ended_at is None else None

    @property
    def last_attempt(self) -> AttemptStatus | None:
        """The newest attempt."""
        return self.status.attempts[-1] if self.status.attempts else None

    def change_attempt(self, **values: Any) -> None:
        """Update the newest attempt."""
        assert self.status.attempts, "only a started job has attempts"
        last = self.status.attempts[-1].model_copy(update=values)
        self.change(attempts=[*self.status.attempts[:-1], last])

    # --- collecting ---

    def change(self, **values: Any) -> None:
        """Update fields of the status."""
        self.status = self.status.model_copy(update=values)

    def show(self, phase: Phase, reason: str, message: str = "") -> None:
        """Set what the job's phase will be."""
        self.phase, self.reason, self.message = phase, reason, message

    def do(self, *operations: Operation) -> None:
        """Add operations."""
        self._operations.extend(operations)

    def say(
        self,
        reason: str,
        message: str,
        *,
        kind: Literal["Normal", "Warning"] = "Normal",
        key: str = "",
        min_interval_seconds: float = 0.0,
    ) -> None:
        """Add an event."""
        self._events.append(Event(reason=reason, message=message[:1024], type=kind, key=key, min_interval_seconds=min_interval_seconds))

    def wake_in(self, seconds: float) -> None:
        """Ask to be called again; the earliest wish wins."""
        seconds = max(0.0, seconds)
        self._wake = seconds if self._wake is None else min(self._wake, seconds)

    def wake_at(self, moment: datetime) -> None:
        """Ask to be called again at a time."""
        self.wake_in((moment - self.now) / timedelta(seconds=1))

    def condition(self, kind: str, verdict: conditions.Verdict, reason: str, message: str = "") -> None:
        """Set a condition."""
        new = Condition(
            type=kind,
            status=verdict,
            reason=reason[:256] or "Unknown",
            message=message[:1024],
            last_transition_time=self.now_text,
            observed_generation=self.job.generation,
        )
        self.change(conditions=conditions.merge(self.status.conditions, new))

    def drop_condition(self, kind: str) -> None:
        """Remove a condition."""
        self.change(conditions=conditions.without(self.status.conditions, kind))

    def done(self) -> Plan:
        """The plan."""
        return Plan(operations=tuple(self._operations), status=self.status, events=tuple(self._events), wake_seconds=self._wake)


def annotations_of(draft: Draft) -> Mapping[str, str]:
    """Annotations of the current run's Job."""
    return draft.observed.workload.annotations if draft.observed.workload else {}

"""The state machine, as one table: what each phase means to kstatus, and where it may lead.

::

    Pending ─► Validating ─► Starting ◄─► Queued
                  ▲             │
     Paused ─► Resuming ────────┤
     Failed (retry) ────────────┤
                                ▼
                  Training ◄─► Evaluating ─► Exporting ─► Succeeded
                     │
                     ├─► Pausing ─► Paused          (suspend, replicas 0)
                     ├─► Stopping ─► Stopped | Cancelled
                     └─► Starting (next run after a failure) | Failed
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from finetune_api.models.status import Phase


class Health(StrEnum):
    """What kstatus, and with it Flux, Argo CD and helm --wait, make of a phase."""

    CURRENT = "Current"
    """Ready=True: what was asked for is so, or the operator waits for someone else (a queue, the user)."""
    IN_PROGRESS = "InProgress"
    """Reconciling=True: the operator itself acts."""
    FAILED = "Failed"
    """Stalled=True: only the user can mend it."""


class Row(NamedTuple):
    """One phase."""

    health: Health
    next: frozenset[Phase]
    """Phases it may change into (itself always)."""


P = Phase
_RUNNING = frozenset({P.QUEUED, P.STARTING, P.TRAINING, P.EVALUATING, P.EXPORTING})
_ENDING = frozenset({P.PAUSING, P.STOPPING})
_RESTING = frozenset({P.PAUSED, P.STOPPED, P.CANCELLED, P.FAILED})
_BEFORE_RUN = frozenset({P.PENDING, P.VALIDATING, P.RESUMING})

_AFTER_RUNNING = _RUNNING | _ENDING | _RESTING | _BEFORE_RUN | {P.SUCCEEDED}
_AFTER_ENDING = _ENDING | _RESTING | _RUNNING | _BEFORE_RUN | {P.SUCCEEDED}
_FROM_REST = _BEFORE_RUN | _RUNNING | _RESTING

TABLE: dict[Phase, Row] = {
    P.PENDING: Row(Health.FAILED, _BEFORE_RUN | _RUNNING | _RESTING),
    P.VALIDATING: Row(Health.IN_PROGRESS, _BEFORE_RUN | _RUNNING | _RESTING),
    P.QUEUED: Row(Health.CURRENT, _AFTER_RUNNING),
    P.STARTING: Row(Health.IN_PROGRESS, _AFTER_RUNNING),
    P.TRAINING: Row(Health.CURRENT, _AFTER_RUNNING),
    P.EVALUATING: Row(Health.CURRENT, _AFTER_RUNNING),
    P.EXPORTING: Row(Health.CURRENT, _AFTER_RUNNING),
    P.PAUSING: Row(Health.IN_PROGRESS, _AFTER_ENDING),
    P.STOPPING: Row(Health.IN_PROGRESS, _AFTER_ENDING),
    P.RESUMING: Row(Health.IN_PROGRESS, _FROM_REST | _ENDING),
    P.PAUSED: Row(Health.CURRENT, _FROM_REST),
    P.STOPPED: Row(Health.CURRENT, _FROM_REST),
    P.FAILED: Row(Health.FAILED, _FROM_REST),
    P.CANCELLED: Row(Health.CURRENT, frozenset()),
    P.SUCCEEDED: Row(Health.CURRENT, frozenset()),
}
"""Pending is shown only while the spec cannot be run (a first look leads straight to Validating or Starting)."""


def may_follow(before: Phase, after: Phase) -> bool:
    """Whether a job may go from one phase to the other."""
    return before == after or after in TABLE[before].next

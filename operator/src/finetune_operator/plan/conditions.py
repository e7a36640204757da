"""Conditions as the Kubernetes API conventions and kstatus want them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from finetune_api.constants import EARLY_STOPPED
from finetune_api.lifecycle import PHASES, Health
from finetune_api.models.status import Artifacts, Condition, ConditionType, Phase

Verdict = Literal["True", "False", "Unknown"]

START_BLOCKED = "StartBlocked"
"""Warning condition: a container cannot start (image, configuration); its transition time begins the patience."""
MAX_CONDITIONS = 24


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with seconds, as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def find(conditions: Sequence[Condition], kind: str) -> Condition | None:
    """The condition of a type."""
    return next((c for c in conditions if c.type == kind), None)


def is_true(conditions: Sequence[Condition], kind: str) -> bool:
    """Whether the condition of a type holds."""
    found = find(conditions, kind)
    return found is not None and found.status == "True"


def merge(conditions: Sequence[Condition], new: Condition) -> list[Condition]:
    """``conditions`` with ``new`` in place of its predecessor, whose transition time stays while the status does."""
    old = find(conditions, new.type)
    if old is not None and old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    if old is None:
        return [*conditions, new][-MAX_CONDITIONS:]
    return [new if c.type == new.type else c for c in conditions]


def without(conditions: Sequence[Condition], kind: str) -> list[Condition]:
    """``conditions`` without a type."""
    return [c for c in conditions if c.type != kind]


def kstatus(phase: Phase, *, stalled_by_edit: bool) -> dict[ConditionType, Verdict]:
    """Ready, Reconciling and Stalled of a phase.

    ``stalled_by_edit``: the spec now asks for what this job cannot become (a refused or invalid edit). The pods go on, but GitOps must see
    that the desired state is not reached.
    """
    health = Health.FAILED if stalled_by_edit else PHASES[phase].health
    return {
        ConditionType.READY: "True" if health is Health.CURRENT else "False",
        ConditionType.RECONCILING: "True" if health is Health.IN_PROGRESS else "False",
        ConditionType.STALLED: "True" if health is Health.FAILED else "False",
    }


def end_reason(artifacts: Artifacts) -> str:
    """Reason of a job that has succeeded: Finished, or EarlyStopped (S-10)."""
    return EARLY_STOPPED if artifacts.early_stopped else "Finished"

"""The last step of every plan: phase, conditions and counts follow from what was decided."""

from __future__ import annotations

from finetune_api.models.status import ConditionType, Phase
from finetune_operator.plan import conditions
from finetune_operator.plan.document import fit_status
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.lost import is_lost
from finetune_operator.plan.names import pod_selector
from finetune_operator.plan.observed import Pod

DASHBOARD_UID = "finetune-job"
"""Stable uid of the dashboard of one job, as the chart ships it."""
_SUSPENDED = frozenset({Phase.PAUSED, Phase.STOPPED})


def living_pods(draft: Draft) -> tuple[Pod, ...]:
    """Pods of the job that run or will. Not those that are lost: now, or when the run after theirs was made, which waits for all others."""
    lost_after, run = draft.settings.lost_pod_seconds, draft.status.run
    return tuple(pod for pod in draft.observed.pods if not pod.ended and pod.run >= run and not is_lost(pod, draft.now, lost_after))


def dashboard_url(base: str | None, namespace: str, name: str) -> str | None:
    """Address of a job's dashboard (T-10)."""
    return f"{base}/d/{DASHBOARD_UID}?var-namespace={namespace}&var-name={name}" if base else None


def finish_status(draft: Draft) -> None:
    """Set phase, conditions, counts and the observed generation."""
    draft.change(
        observed_generation=draft.job.generation,
        phase=draft.phase,
        reason=draft.reason[:256] or None,
        replicas=len(living_pods(draft)),
        selector=pod_selector(draft.job.name),
        dashboard_url=dashboard_url(draft.settings.grafana_url, draft.job.namespace, draft.job.name),
    )
    message = draft.message or _default_message(draft)
    valid = conditions.find(draft.status.conditions, ConditionType.VALID)
    refused = valid is not None and valid.status == "False"
    cancelled_anyway = draft.phase in (Phase.CANCELLED, Phase.SUCCEEDED)
    verdicts = conditions.kstatus(draft.phase, stalled_by_edit=refused and not cancelled_anyway)
    for kind, verdict in verdicts.items():
        if refused and not cancelled_anyway and valid is not None:
            draft.condition(kind, verdict, valid.reason, valid.message)
        else:
            draft.condition(kind, verdict, draft.reason or draft.phase, message if verdict == "True" or kind is ConditionType.READY else "")
    suspended = draft.phase in _SUSPENDED
    draft.condition(
        ConditionType.SUSPENDED,
        "True" if suspended else "False",
        draft.reason if suspended else "NotSuspended",
        message if suspended else "",
    )
    _outcome(draft, message)
    draft.status = fit_status(draft.status, draft.job.stored_status.get("progress") or {})


def _outcome(draft: Draft, message: str) -> None:
    """Succeeded and Failed: what ``kubectl wait`` waits for; Unknown while it is open."""
    match draft.phase:
        case Phase.SUCCEEDED:
            reason = conditions.end_reason(draft.status.artifacts)
            draft.condition(ConditionType.SUCCEEDED, "True", reason, message)
            draft.condition(ConditionType.FAILED, "False", reason)
        case Phase.FAILED:
            draft.condition(ConditionType.SUCCEEDED, "False", draft.reason, message)
            draft.condition(ConditionType.FAILED, "True", draft.reason, message)
        case Phase.CANCELLED:
            draft.condition(ConditionType.SUCCEEDED, "False", "Cancelled", message)
            draft.condition(ConditionType.FAILED, "False", "Cancelled")
        case _:
            draft.condition(ConditionType.SUCCEEDED, "Unknown", "NotFinished")
            draft.condition(ConditionType.FAILED, "False", "NotFailed")


def _default_message(draft: Draft) -> str:
    """The message of a phase that has none of its own: unchanged while the phase is, so that nothing is written for its sake."""
    before = draft.job.status
    ready = conditions.find(before.conditions, ConditionType.READY)
    if ready is not None and (before.phase, before.reason) == (draft.phase, draft.reason or None) and not draft.status.failure:
        return ready.message
    if draft.phase is Phase.TRAINING:
        return f"Run {draft.status.run} trains on {draft.status.last_replicas} pod(s)."
    return ""

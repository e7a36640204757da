"""Between runs: clear away what the last one left, then rest as the user wants, or start the next."""

from __future__ import annotations

from datetime import timedelta

from finetune_api.constants import FINALIZER, run_name
from finetune_api.contract.failures import FailureClass
from finetune_api.models.status import FINAL_PHASES, ConditionType, Phase
from finetune_operator.plan import conditions
from finetune_operator.plan.custom import method_of, resting_place
from finetune_operator.plan.decision import DeleteJob, DeleteLeftover
from finetune_operator.plan.desire import Desire
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.export import asks_again, is_exporting
from finetune_operator.plan.inspect import confirm_pause
from finetune_operator.plan.observed import JobObject, Leftover, parse_time
from finetune_operator.plan.pause import USER_REQUESTED, show_release
from finetune_operator.plan.retention import is_retained, retain, set_expiry
from finetune_operator.plan.retry import OUTCOME_PAUSED
from finetune_operator.plan.specs import Accepted, Refused
from finetune_operator.plan.start import start
from finetune_operator.plan.status import living_pods
from finetune_operator.plan.verbs import delete_verb

DONE = "Done"
"""Reason of Reconciling=False once nothing of a finished job is left to clear away."""
KEEPING_PODS = "KeepingPods"


def between_runs(draft: Draft, verdict: Accepted | Refused | None) -> None:
    """Decide on a job without a run under way."""
    failed = draft.status.failure is not None
    if failed and draft.desire is not Desire.CANCEL and _kept(draft):
        _show_failure(draft)
        return
    if not _swept(draft):
        _show_ending(draft)
        return
    if not confirm_pause(draft):
        return
    _sweep_verbs(draft)
    match draft.desire:
        case Desire.CANCEL:
            draft.change(finished_at=draft.now_text)
            draft.show(Phase.CANCELLED, "Cancelled", _where(draft, "Cancelled"))
            if draft.status.run > 0:
                set_expiry(draft)
            draft.wake_in(0)
        case _ if failed:
            _show_failure(draft)
        case Desire.STOP:
            _rest(draft, Phase.STOPPED, "Stopped")
        case Desire.PAUSE:
            _rest(draft, Phase.PAUSED, "Paused")
        case Desire.RUN:
            start(draft, verdict)


def _rest(draft: Draft, phase: Phase, word: str) -> None:
    arrived = draft.status.phase is not phase
    hold = draft.status.hold if phase is Phase.PAUSED else None
    if hold is not None:
        draft.show(phase, hold.reason, f"{_where(draft, word)} {hold.message}")
    else:
        draft.show(phase, USER_REQUESTED, _where(draft, word))
    if arrived:
        draft.say(word, draft.message, key=str(draft.status.run))


def _where(draft: Draft, word: str) -> str:
    """What is safe, and what is lost."""
    latest = draft.status.checkpoints.latest
    if draft.status.run == 0:
        return f"{word} before the first run."
    if (method := method_of(draft)) is not None:
        return resting_place(draft, word, method)
    if latest is None:
        return f"{word}; no step was trained that could be kept."
    pause = draft.status.pause
    lost = f" {pause.lost_steps} steps after it are lost." if pause is not None and pause.lost_steps else ""
    return f"{word} at step {latest.step}; checkpoint-{latest.step} of attempt {latest.attempt} is complete.{lost}"


def _show_failure(draft: Draft) -> None:
    failure = draft.status.failure
    assert failure is not None
    draft.show(Phase.FAILED, failure.failure_class, failure.message)


def _show_ending(draft: Draft) -> None:
    """Phase while the last run's pods go."""
    last = draft.last_attempt
    outcome = last.outcome if last is not None else None
    if draft.status.failure is not None and draft.status.phase is Phase.FAILED and draft.desire is not Desire.CANCEL:
        _show_failure(draft)
    elif draft.status.failure is not None and draft.desire is Desire.RUN:
        draft.show(Phase.STARTING, draft.status.failure.failure_class, draft.status.failure.message)
    elif draft.desire is not Desire.RUN:
        show_release(draft)
    elif outcome == OUTCOME_PAUSED:
        draft.show(Phase.RESUMING, "AwaitingPodsGone", "The next run starts when the last pod is gone.")
    else:
        draft.show(Phase.STARTING, outcome or "Retrying", "The next run starts when the last pod is gone.")


def _kept(draft: Draft) -> bool:
    """Whether the ended pods of a failed run stay for kubectl logs; asks to be called again when their time is over."""
    workload = draft.observed.workload
    finished = parse_time(draft.status.finished_at)
    if workload is None or not workload.ended or workload.deleting or finished is None:
        return False
    until = finished + timedelta(seconds=draft.settings.finished_retention_seconds)
    if draft.now >= until:
        return False
    draft.wake_at(until)
    return True


def _swept(draft: Draft) -> bool:
    """Remove the last run's objects; True when no pod of it is left (lost ones, which nobody can end, excepted)."""
    workload = draft.observed.workload
    living = living_pods(draft)
    lost = any(not pod.ended for pod in draft.observed.pods) and not living
    if workload is None:
        return not living
    if workload.deleting:
        return lost
    delete_leftovers(draft, keep_config=True)
    node_lost = draft.last_attempt is not None and draft.last_attempt.outcome == FailureClass.NODE_LOST
    draft.do(DeleteJob(name=workload.name, uid=workload.uid, propagation="Background" if lost or node_lost else "Foreground"))
    return False


def delete_leftovers(draft: Draft, *, keep_config: bool, spared: str | None = None) -> None:
    """Remove ConfigMaps and Services, as :func:`clearable` says."""
    for leftover in clearable(draft, keep_config=keep_config, spared=spared):
        draft.do(DeleteLeftover(kind=leftover.kind, name=leftover.name, uid=leftover.uid))


def clearable(draft: Draft, *, keep_config: bool, spared: str | None = None) -> tuple[Leftover, ...]:
    """What may go. The last run's ConfigMap stays while it is needed: the next run must fit to it, a cleanup is made from it.

    ``spared``: name of a verb that is under way.
    """
    kept = run_name(draft.job.name, draft.status.run) if keep_config else None
    return tuple(each for each in draft.observed.leftovers or () if (each.kind, each.name) != ("ConfigMap", kept) and each.name != spared)


def _sweep_verbs(draft: Draft) -> None:
    """Remove verbs whose answer is in the status, or is not wanted any more."""
    starting = draft.desire is Desire.RUN and draft.status.failure is None
    for verb, workload in draft.observed.verbs.items():
        if not workload.deleting and (verb == "inspect" or not starting):
            delete_verb(draft, workload)


def tidy_finished(draft: Draft) -> None:
    """Clear away what a finished job left, after the time its pods are kept for their logs."""
    workload = draft.observed.workload
    finished = parse_time(draft.status.finished_at)
    until = (finished or draft.now) + timedelta(seconds=draft.settings.finished_retention_seconds)
    if draft.phase is Phase.SUCCEEDED and workload is not None and draft.now < until:
        draft.wake_at(until)
        draft.condition(ConditionType.RECONCILING, "False", KEEPING_PODS, "The ended pods are kept for their logs for a while.")
        return
    retained = is_retained(draft.job)
    keep_config = FINALIZER in draft.job.finalizers or retained
    cleanup = draft.observed.verbs.get("cleanup") if retained else None
    spared = cleanup.name if cleanup is not None else None
    delete_leftovers(draft, keep_config=keep_config, spared=spared)
    left = [each for each in (workload, *draft.observed.verbs.values()) if each is not None and each is not cleanup]
    for each in left:
        if not each.deleting:
            draft.do(DeleteJob(name=each.name, uid=each.uid, propagation="Background"))
    if left or clearable(draft, keep_config=keep_config, spared=spared):
        draft.wake_in(1)
    elif not retained:
        draft.condition(ConditionType.RECONCILING, "False", DONE)
    else:
        retain(draft)


def is_settled(job: JobObject) -> bool:
    """Whether nothing will ever have to be done for this job again, short of its deletion."""
    if is_exporting(job) or asks_again(job):
        return False
    reconciling = conditions.find(job.status.conditions, ConditionType.RECONCILING)
    cleared = job.status.phase in FINAL_PHASES and reconciling is not None and reconciling.reason == DONE
    return cleared and job.deleted_at is None and job.status.observed_generation == job.generation

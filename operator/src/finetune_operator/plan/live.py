"""A run under way: what its Job, its pods and its trainer's posts say."""

from __future__ import annotations

from collections.abc import Sequence

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.status import ConditionType, Phase
from finetune_operator.plan.blocked import blocked_message, look_for_blocked
from finetune_operator.plan.custom import method_of
from finetune_operator.plan.desire import Desire
from finetune_operator.plan.divergence import go_back, goes_back
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.ending import close_attempt, fail, fail_or_retry, note_checkpoint, succeed
from finetune_operator.plan.failure import Culprit, find_culprit, read_message
from finetune_operator.plan.inspect import vanished
from finetune_operator.plan.lost import is_lost, lost_at
from finetune_operator.plan.observed import Pod, Workload
from finetune_operator.plan.pause import (
    active_ask,
    answer_ask,
    ask_for_pause,
    discards,
    ending_phase,
    nothing_to_save,
    timeout_passed,
)
from finetune_operator.plan.queueing import show_queued
from finetune_operator.plan.report import activity
from finetune_operator.plan.retry import OUTCOME_PAUSED
from finetune_operator.plan.unschedulable import describe_missing
from finetune_operator.plan.usage import count_usage

_PHASES = {
    "Training": Phase.TRAINING,
    "Evaluating": Phase.EVALUATING,
    "Exporting": Phase.EXPORTING,
    "Finished": Phase.EXPORTING,
    "Holding": Phase.TRAINING,
}


def live(draft: Draft) -> None:
    """Decide on a run whose end is not recorded yet."""
    workload = draft.observed.workload
    if workload is None:
        vanished(draft)
        return
    if draft.job.adopted:
        draft.show(_starting(draft), "Adopted", "The run was created when the operator ended; it is looked at next.")
        draft.wake_in(0.0)
        return
    pods = tuple(pod for pod in draft.observed.pods if pod.owner_uid == workload.uid)
    lost = [pod for pod in pods if is_lost(pod, draft.now, draft.settings.lost_pod_seconds)]
    answer = _answer_of_rank_0(pods)
    if answer is not None and answer.usage is not None:
        count_usage(draft, answer.usage)
    if workload.complete or (draft.report.finished is not None and workload.ended):
        succeed(draft, answer)
    elif lost:
        _node_lost(draft, lost)
    elif workload.failed:
        (go_back if goes_back(pods) else fail_or_retry)(draft, find_culprit(pods, workload))
    elif workload.failing or workload.deleting:
        _wait_for_end(draft, workload)
    elif active_ask(draft.status) is not None or draft.desire is not Desire.RUN:
        _pausing(draft, pods)
    else:
        _starting_or_running(draft, pods, workload)
    _watch_for_loss(draft, pods)


def _answer_of_rank_0(pods: Sequence[Pod]) -> TerminationMessage | None:
    first = next((pod for pod in pods if pod.index == 0), None)
    return read_message(first.termination_message) if first is not None else None


def _node_lost(draft: Draft, lost: list[Pod]) -> None:
    names = ", ".join(sorted(f"{pod.name} on {pod.node or 'no node'}" for pod in lost))
    fail_or_retry(draft, Culprit(FailureClass.NODE_LOST, f"Node lost: {names} does not answer any more and is left behind."))


def _wait_for_end(draft: Draft, workload: Workload) -> None:
    """The first pod failed (or somebody deleted the Job): the others are ending."""
    if active_ask(draft.status) is not None or draft.desire is not Desire.RUN:
        draft.show(ending_phase(draft), "PodsEnding", workload.message)
    else:
        draft.show(draft.phase, "PodsEnding", workload.message or "The run's Job was deleted; its pods are ending.")


def _pausing(draft: Draft, pods: tuple[Pod, ...]) -> None:
    """Ask, wait for the answer, and record it; see :mod:`finetune_operator.plan.pause`."""
    phase = ending_phase(draft)
    if (method := method_of(draft)) is not None and active_ask(draft.status) is None:
        close_attempt(draft, OUTCOME_PAUSED)
        draft.show(phase, "Releasing", f"The pods get SIGTERM; TrainingMethod {method} has pausePolicy.graceSeconds to save.")
        draft.say("PodsReleased", draft.message, key=str(draft.status.run))
        return
    ask = ask_for_pause(draft)
    stopped = draft.report.stopped
    if stopped is not None and stopped.command_id == ask.command_id:
        if stopped.checkpoint is not None:
            note_checkpoint(draft, stopped.checkpoint)
        answer_ask(draft, saved=stopped.saved, step=stopped.step, lost_steps=stopped.lost_steps, seconds=stopped.seconds)
        close_attempt(draft, OUTCOME_PAUSED, to_step=stopped.step)
        draft.show(phase, "Releasing", f"Stopped at step {stopped.step}; the pods are being released.")
    elif nothing_to_save(draft, pods):
        if not _was_put_back(draft, pods):  # else the store says what the preempted pods have saved
            latest = draft.status.checkpoints.latest
            answer_ask(draft, saved=False, step=latest.step if latest is not None else 0)
        close_attempt(draft, OUTCOME_PAUSED)
        draft.show(phase, "Releasing", "Nothing was trained yet; the pods are being removed.")
    elif not timeout_passed(draft, ask):
        draft.show(phase, "AwaitingCheckpoint", "The trainer was asked to save a checkpoint and stop.")
    elif discards(draft):
        close_attempt(draft, OUTCOME_PAUSED)
        draft.show(
            phase, "TimedOut", "No complete checkpoint before pausePolicy.timeoutSeconds; the pods are given up (ifUnsaved: Discard)."
        )
        draft.say("PauseTimedOut", draft.message, kind="Warning", key=ask.command_id)
    else:
        message = (
            "No complete checkpoint since pausePolicy.timeoutSeconds. The pods are kept (ifUnsaved: Wait);"
            " set it to Discard to give up the unsaved steps."
        )
        if draft.job.status.reason != "CheckpointOverdue":
            draft.say("CheckpointOverdue", message, kind="Warning", key=ask.command_id)
        draft.show(phase, "CheckpointOverdue", message)


def _was_put_back(draft: Draft, pods: Sequence[Pod]) -> bool:
    """Whether this run has trained and no pod of it is left: a queue took their place."""
    progress = draft.status.progress
    return progress is not None and progress.run == draft.status.run and progress.step > 0 and not any(pod.started for pod in pods)


def _starting_or_running(draft: Draft, pods: Sequence[Pod], workload: Workload) -> None:
    blocked, hopeless = look_for_blocked(draft, pods)
    if hopeless is not None:
        fail(draft, hopeless)
    elif blocked is not None:
        draft.show(_starting(draft), blocked.waiting or "", blocked_message(blocked))
    else:
        _running(draft, pods, workload)


def _running(draft: Draft, pods: Sequence[Pod], workload: Workload) -> None:
    """Phase of a run that goes its way: first what its pods say, then its trainer."""
    unschedulable = next((pod.unschedulable for pod in pods if pod.unschedulable is not None), None)
    progress = draft.status.progress
    current = progress if progress is not None and progress.run == draft.status.run else None
    started = len(pods) >= workload.completions and all(pod.started for pod in pods)
    if workload.suspended:
        show_queued(draft, workload, pods)
    elif unschedulable is not None:
        _queued(draft, FailureClass.UNSCHEDULABLE, describe_missing(unschedulable))
    elif not started:
        draft.show(_starting(draft), "AwaitingPods", f"{sum(pod.started for pod in pods)} of {workload.completions} pods have started.")
    else:
        draft.condition(ConditionType.ADMITTED, "True", "PodsScheduled")
        silent = "Training" if method_of(draft) is not None else "Starting"
        doing = activity(current.phase) if current is not None else silent
        draft.show(_PHASES.get(doing, _starting(draft)), doing)


def _queued(draft: Draft, reason: str, message: str) -> None:
    draft.condition(ConditionType.ADMITTED, "False", reason, message)
    draft.show(Phase.QUEUED, reason, message)


def _starting(draft: Draft) -> Phase:
    last = draft.last_attempt
    return Phase.RESUMING if last is not None and last.reason == "Resumed" else Phase.STARTING


def _watch_for_loss(draft: Draft, pods: Sequence[Pod]) -> None:
    for pod in pods:
        moment = lost_at(pod, draft.settings.lost_pod_seconds)
        if moment is not None and moment > draft.now:
            draft.wake_at(moment)

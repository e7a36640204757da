"""Why a run ended: the culprit among its pods, and the failure class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from pydantic import ValidationError

from finetune_api.contract.failures import (
    CODE_PRECEDENCE,
    EXIT_DONE,
    EXIT_PEER_LOST,
    EXIT_STOPPED,
    EXIT_STORE_UNREACHABLE,
    EXIT_USER_ERROR,
    REACTIONS,
    FailureClass,
)
from finetune_api.contract.termination import MAX_LOG_BYTES, MAX_MESSAGE_BYTES, TerminationMessage
from finetune_api.models.status import FailureStatus
from finetune_operator.plan.observed import Pod, Workload

SIGKILL_CODE = 137
SIGTERM_CODE = 143
NODE_DISRUPTIONS = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
"""Reasons of DisruptionTarget that speak of the node, not of the pod."""
_LATEST = datetime.max.replace(tzinfo=UTC)
_CLASS_OF_CODE: Mapping[int | None, FailureClass] = {
    None: FailureClass.PREEMPTED,
    EXIT_STOPPED: FailureClass.PREEMPTED,
    SIGTERM_CODE: FailureClass.PREEMPTED,
    EXIT_PEER_LOST: FailureClass.PEER_LOST,
    EXIT_STORE_UNREACHABLE: FailureClass.STORAGE_UNAVAILABLE,
    EXIT_USER_ERROR: FailureClass.CONFIGURATION,
}
"""Class by exit code alone. None: the pod was removed before its container ran or told."""


class Culprit(NamedTuple):
    """What ended a run."""

    failure_class: FailureClass
    message: str
    exit_code: int | None = None
    failed_rank: int | None = None
    log_lines: str = ""
    answer: TerminationMessage | None = None

    def to_status(self, run: int) -> FailureStatus:
        """The failure as the job's status shows it."""
        return FailureStatus(
            failure_class=self.failure_class,
            message=self.message[:1024],
            exit_code=self.exit_code,
            failed_rank=self.failed_rank,
            last_log_lines=self.log_lines[-MAX_LOG_BYTES:],
            advice=REACTIONS[self.failure_class].advice,
            run=run,
        )


def read_message(text: str) -> TerminationMessage | None:
    """A termination message; None for text that is none (a crash before it was written leaves log lines there)."""
    if not text or len(text.encode()) > MAX_MESSAGE_BYTES:
        return None
    try:
        return TerminationMessage.model_validate_json(text)
    except ValidationError:
        return None


def find_culprit(pods: Sequence[Pod], workload: Workload | None = None) -> Culprit:
    """The pod that failed first and was no mere victim of the others. Without any pod left: they were deleted from outside."""
    if workload is not None and workload.message.startswith(f"{FailureClass.DEADLINE_EXCEEDED}:"):
        return Culprit(FailureClass.DEADLINE_EXCEEDED, f"The Job's time was over ({workload.message}).", answer=_answer_of(pods))
    ended = [pod for pod in pods if pod.ended and pod.exit_code != EXIT_DONE]
    if not ended:
        why = f" ({workload.message})" if workload is not None and workload.message else ""
        return Culprit(FailureClass.PREEMPTED, f"The pods were deleted from outside{why}.")
    return judge(min(ended, key=_blame))


def _answer_of(pods: Sequence[Pod]) -> TerminationMessage | None:
    """The last words of pod 0, which knows the newest checkpoint."""
    return next((read_message(pod.termination_message) for pod in pods if pod.index == 0), None)


def judge(pod: Pod) -> Culprit:
    """Class and message of one ended pod."""
    answer = read_message(pod.termination_message)
    code = answer.exit_code if answer is not None else pod.exit_code
    failure_class = answer.failure_class if answer is not None and answer.failure_class is not None else _class_of(pod)
    message = (answer.message if answer is not None else "") or _sentence(pod, failure_class)
    lines = answer.log_lines if answer is not None else pod.termination_message[-MAX_LOG_BYTES:]
    return Culprit(failure_class, message, code, answer.failed_rank if answer is not None else None, lines, answer)


def _blame(pod: Pod) -> tuple[int, int, datetime]:
    """Sort key: causes before victims, then by time of death."""
    culprit = judge(pod)
    victim = culprit.failure_class is FailureClass.PEER_LOST or (culprit.failure_class is FailureClass.PREEMPTED and pod.disruption is None)
    code = culprit.exit_code if culprit.exit_code in CODE_PRECEDENCE else None
    return (int(victim), CODE_PRECEDENCE.index(code) if code is not None else 1, pod.finished_at or _LATEST)


def _class_of(pod: Pod) -> FailureClass:
    """Class of a pod that named none itself."""
    if pod.exit_reason == "OOMKilled":
        return FailureClass.OOM_KILLED
    if pod.disruption is not None:
        return FailureClass.NODE_LOST if pod.disruption in NODE_DISRUPTIONS else FailureClass.PREEMPTED
    if pod.exit_code == SIGKILL_CODE:
        return FailureClass.PREEMPTED if pod.deletion_time is not None else FailureClass.OOM_KILLED
    return _CLASS_OF_CODE.get(pod.exit_code, FailureClass.UNKNOWN)


def _sentence(pod: Pod, failure_class: FailureClass) -> str:
    """What can be said of a pod that left no message."""
    where = f"Pod {pod.name}" + (f" on node {pod.node}" if pod.node else "")
    if pod.disruption is not None:
        return f"{where} was evicted ({pod.disruption})."
    if pod.exit_code is None:
        return f"{where} ended without running{f' ({pod.exit_reason})' if pod.exit_reason else ''}."
    if failure_class is FailureClass.OOM_KILLED and pod.exit_reason != "OOMKilled":
        return f"{where} was killed from outside (exit code {pod.exit_code}), most often for lack of memory."
    return f"{where} ended with exit code {pod.exit_code}{f' ({pod.exit_reason})' if pod.exit_reason else ''}."

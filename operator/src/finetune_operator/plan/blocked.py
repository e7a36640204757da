"""Containers that cannot start (image not to be pulled, configuration refused). They hold their GPU, so patience is short."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from finetune_api.contract.failures import FailureClass
from finetune_operator.plan import conditions
from finetune_operator.plan.conditions import START_BLOCKED
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.failure import Culprit
from finetune_operator.plan.observed import Pod, parse_time

IMAGE_REASONS = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"}
)
CONFIG_REASONS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
HOPELESS = frozenset({"InvalidImageName"})


def look_for_blocked(draft: Draft, pods: Iterable[Pod]) -> tuple[Pod | None, Culprit | None]:
    """The pod that cannot start, and once patience is over why to give up; None for either. The condition StartBlocked keeps the time."""
    pod = next((pod for pod in pods if pod.waiting in IMAGE_REASONS | CONFIG_REASONS), None)
    if pod is None or pod.waiting is None:
        draft.drop_condition(START_BLOCKED)
        return None, None
    message = blocked_message(pod)
    draft.condition(START_BLOCKED, "True", pod.waiting, message)
    found = conditions.find(draft.status.conditions, START_BLOCKED)
    since = parse_time(found.last_transition_time) if found is not None else None
    assert since is not None, "the condition was set above"
    deadline = since + timedelta(seconds=draft.settings.start_patience_seconds)
    if draft.now < deadline and pod.waiting not in HOPELESS:
        draft.wake_at(deadline)
        return pod, None
    failure_class = FailureClass.IMAGE_PULL if pod.waiting in IMAGE_REASONS else FailureClass.CONFIGURATION
    return pod, Culprit(failure_class, message)


def blocked_message(pod: Pod) -> str:
    """Which pod, and what the kubelet says."""
    return f"Pod {pod.name}: {pod.waiting}: {pod.waiting_message}"

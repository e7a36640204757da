from __future__ import annotations

import pytest

from finetune_api.contract.failures import REACTIONS, FailureClass
from finetune_api.contract.store import CheckpointRef
from finetune_api.contract.termination import MAX_MESSAGE_BYTES
from finetune_operator.plan.failure import find_culprit, judge, read_message
from finetune_operator.plan.observed import Pod
from tests.support.operator_cluster import failure
from tests.support.operator_values import NOW, ended_pod, make_pod, make_workload

CASES: list[tuple[Pod, FailureClass]] = [
    (ended_pod(code=137, exit_reason="OOMKilled"), FailureClass.OOM_KILLED),
    (ended_pod(code=137), FailureClass.OOM_KILLED),
    (ended_pod(code=137, deletion_time=NOW), FailureClass.PREEMPTED),
    (ended_pod(code=137, disruption="EvictionByEvictionAPI"), FailureClass.PREEMPTED),
    (ended_pod(code=143), FailureClass.PREEMPTED),
    (ended_pod(code=75), FailureClass.PREEMPTED),
    (ended_pod(code=75, disruption="PreemptionByScheduler"), FailureClass.PREEMPTED),
    (ended_pod(code=76), FailureClass.PEER_LOST),
    (ended_pod(code=77), FailureClass.STORAGE_UNAVAILABLE),
    (ended_pod(code=1), FailureClass.UNKNOWN),
    (ended_pod(code=42), FailureClass.CONFIGURATION),
    (ended_pod(code=None, disruption="DeletionByTaintManager"), FailureClass.NODE_LOST),
    (ended_pod(code=None, disruption="DeletionByPodGC"), FailureClass.NODE_LOST),
    (ended_pod(code=None), FailureClass.PREEMPTED),
    (ended_pod(code=1, termination_message=failure(FailureClass.MODEL, 42).to_json()), FailureClass.MODEL),
]
"""A pod -> its class."""
TRAINERS = frozenset(
    {
        FailureClass.CUDA_OUT_OF_MEMORY, FailureClass.LOSS_DIVERGED, FailureClass.DATA, FailureClass.HUGGING_FACE_AUTH,
        FailureClass.HUB_UNAVAILABLE, FailureClass.STORAGE_AUTH, FailureClass.STALLED, FailureClass.CHECKPOINT_INCOMPLETE,
        FailureClass.QUANTIZATION_UNAVAILABLE,
    }
)  # fmt: skip
"""Classes only the trainer can tell: its last words name them."""
ELSEWHERE = frozenset({FailureClass.IMAGE_PULL, FailureClass.UNSCHEDULABLE, FailureClass.DEADLINE_EXCEEDED})
"""Classes told by a pod that never ran (test_failing.py), and by the Job (below)."""


def test_every_class_is_found_by_the_operator_or_told_by_the_trainer() -> None:
    found = {expected for _, expected in CASES}
    assert found | TRAINERS | ELSEWHERE == set(FailureClass)
    assert not TRAINERS & (found | ELSEWHERE)


@pytest.mark.parametrize(("pod", "expected"), CASES)
def test_class_of_a_pod(pod: Pod, expected: FailureClass) -> None:
    """AC-60, AC-64, Z-03, Z-04, Z-06, Z-07: what the pod says of itself, else its container's state."""
    assert judge(pod).failure_class is expected


@pytest.mark.parametrize("failure_class", FailureClass)
def test_the_trainers_word_is_taken_whatever_the_kubelet_says(failure_class: FailureClass) -> None:
    words = failure(failure_class, REACTIONS[failure_class].exit_code)
    pod = ended_pod(code=137, exit_reason="OOMKilled", disruption="EvictionByEvictionAPI", termination_message=words.to_json())
    assert (judge(pod).failure_class, judge(pod).exit_code) == (failure_class, REACTIONS[failure_class].exit_code)


@pytest.mark.parametrize("text", ["", "Traceback (most recent call last): ...", "{}", "x" * (MAX_MESSAGE_BYTES + 1)])
def test_text_that_is_no_message(text: str) -> None:
    assert read_message(text) is None


def test_log_lines_are_kept_when_nothing_else_was_left() -> None:
    """The kubelet falls back to the log's end."""
    culprit = judge(ended_pod(code=1, termination_message="Traceback: boom"))
    assert (culprit.failure_class, culprit.log_lines) == (FailureClass.UNKNOWN, "Traceback: boom")


def peer_lost(index: int, seconds: float) -> Pod:
    return ended_pod(index, code=76, seconds=seconds, termination_message=failure(FailureClass.PEER_LOST, 76).to_json())


def test_a_cause_comes_before_its_victims_whoever_ended_first() -> None:
    cause = ended_pod(2, code=42, seconds=9, termination_message=failure(FailureClass.LOSS_DIVERGED, 42).to_json())
    assert find_culprit([peer_lost(0, 1), peer_lost(1, 2), cause]).failure_class is FailureClass.LOSS_DIVERGED


def test_an_evicted_pod_is_a_cause_its_peers_are_not() -> None:
    evicted = ended_pod(1, code=75, seconds=5, disruption="EvictionByEvictionAPI")
    assert find_culprit([peer_lost(0, 1), evicted]).failure_class is FailureClass.PREEMPTED


def test_the_first_of_equals_counts() -> None:
    pods = [ended_pod(0, code=1, seconds=4, termination_message="late"), ended_pod(1, code=1, seconds=2, termination_message="early")]
    assert find_culprit(pods).log_lines == "early"


def test_pods_that_are_gone_or_went_well_are_nobodys_fault() -> None:
    workload = make_workload(failed=True, message="BackoffLimitExceeded: one pod failed")
    for pods in ([], [make_pod()], [ended_pod(code=0)]):
        culprit = find_culprit(pods, workload)
        assert culprit.failure_class is FailureClass.PREEMPTED
        assert "deleted from outside (BackoffLimitExceeded" in culprit.message


OVER_TIME = make_workload(failed=True, message="DeadlineExceeded: Job was active longer than specified deadline")


@pytest.mark.parametrize("codes", [(), (75, 75), (137, 42)])
def test_a_job_whose_time_was_over(codes: tuple[int, ...]) -> None:
    """Z-07: whatever its pods ended with, the deadline ended them; what pod 0 saved is not lost."""
    saved = CheckpointRef(attempt=1, step=20)
    words = failure(FailureClass.PREEMPTED, 75, checkpoint=saved).to_json()
    culprit = find_culprit([ended_pod(index, code=code, termination_message=words) for index, code in enumerate(codes)], OVER_TIME)
    assert culprit.failure_class is FailureClass.DEADLINE_EXCEEDED
    assert "Job was active longer than specified deadline" in culprit.message
    assert (culprit.answer.checkpoint if culprit.answer is not None else None) == (saved if codes else None)


def test_the_status_has_bounded_sizes_and_the_advice() -> None:
    pod = ended_pod(code=1, termination_message="l" * 4000)
    status = judge(pod).to_status(3)
    assert (len(status.last_log_lines), status.run, status.advice) == (2048, 3, REACTIONS[FailureClass.UNKNOWN].advice)

from __future__ import annotations

from datetime import timedelta

import pytest

from finetune_operator.plan.lost import is_lost, lost_at
from finetune_operator.plan.observed import Pod
from tests.support.operator_values import NOW, ended_pod, make_pod

LATER = NOW + timedelta(seconds=120)


@pytest.mark.parametrize(
    ("pod", "seconds"),
    [
        (make_pod(), None),
        (ended_pod(deletion_time=NOW), None),
        (make_pod(deletion_time=LATER), 150),
        (make_pod(deletion_time=LATER, disruption="EvictionByEvictionAPI", disrupted_at=NOW, ready=False), 150),
        (make_pod(deletion_time=LATER, disruption="DeletionByTaintManager", disrupted_at=NOW, ready=True), 150),
        (make_pod(deletion_time=LATER, disruption="DeletionByTaintManager", disrupted_at=NOW, ready=False), 30),
        (make_pod(phase="Pending", started=False, ready=False, disruption="DeletionByPodGC", disrupted_at=NOW), 30),
    ],
)
def test_when_a_pod_counts_as_lost(pod: Pod, seconds: float | None) -> None:
    """Design §4, dead node: a node that is not heard of is given 30 s, a pod that may still be saving its whole grace as well."""
    assert lost_at(pod, 30) == (None if seconds is None else NOW + timedelta(seconds=seconds))
    if seconds is not None:
        assert not is_lost(pod, NOW + timedelta(seconds=seconds - 1), 30)
        assert is_lost(pod, NOW + timedelta(seconds=seconds), 30)

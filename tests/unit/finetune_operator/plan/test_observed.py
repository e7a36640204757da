"""Manifests as the API server gives them, read into values."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.plan.observed import Pod, Workload
from tests.support.operator_values import NOW

TIME = "2026-11-21T08:00:00Z"


def pod(status: dict[str, Any], **metadata: Any) -> Pod:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "demo-r1", "uid": "uid-run", "controller": True}
    manifest = {
        "metadata": {
            "name": "demo-r1-0",
            "uid": "uid-pod",
            "labels": {"finetune.dev/component": "trainer", "finetune.dev/run": "1"},
            "annotations": {"batch.kubernetes.io/job-completion-index": "0"},
            "ownerReferences": [owner],
            **metadata,
        },
        "spec": {},
        "status": status,
    }
    read = Pod.from_manifest(manifest)
    assert read is not None
    return read


def container(**state: Any) -> list[dict[str, Any]]:
    return [{"name": "sidecar", "state": {"running": {}}}, {"name": "trainer", "state": state}]


def test_a_pod_without_a_job_is_nobodys() -> None:
    """Labels are forgeable: what counts is the controller."""
    assert Pod.from_manifest({"metadata": {"name": "x", "uid": "u", "labels": {"finetune.dev/job": "demo"}}}) is None


@pytest.mark.parametrize(
    ("status", "started", "ended"),
    [
        ({"phase": "Pending"}, False, False),
        ({"phase": "Pending", "containerStatuses": container(waiting={"reason": "ContainerCreating"})}, False, False),
        ({"phase": "Running", "containerStatuses": container(running={"startedAt": TIME})}, True, False),
        ({"phase": "Running", "containerStatuses": container(terminated={"exitCode": 0})}, True, True),
        ({"phase": "Failed", "reason": "Evicted"}, False, True),
        ({"phase": "Failed", "containerStatuses": container(waiting={"reason": "ContainerCreating"})}, False, True),
    ],
)
def test_whether_it_started_and_ended(status: dict[str, Any], started: bool, ended: bool) -> None:
    read = pod(status)
    assert (read.started, read.ended) == (started, ended)


def test_a_terminated_container() -> None:
    terminated = {"exitCode": 42, "reason": "Error", "message": "words", "finishedAt": TIME}
    read = pod({"phase": "Failed", "containerStatuses": container(terminated=terminated)})
    assert (read.exit_code, read.exit_reason, read.termination_message, read.finished_at) == (42, "Error", "words", NOW)


def test_why_it_waits() -> None:
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes"}
    assert pod({"phase": "Pending", "conditions": [unschedulable]}).unschedulable == "0/3 nodes"
    gated = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gates"}
    assert pod({"phase": "Pending", "conditions": [gated]}).unschedulable is None
    waiting = container(waiting={"reason": "ErrImagePull", "message": "no such host"})
    assert pod({"phase": "Pending", "containerStatuses": waiting}).waiting == "ErrImagePull"


def test_a_disrupted_pod() -> None:
    disruption = {"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "lastTransitionTime": TIME}
    read = pod({"phase": "Running", "conditions": [disruption]}, deletionTimestamp=TIME)
    assert (read.disruption, read.disrupted_at, read.deletion_time, read.ready) == ("DeletionByTaintManager", NOW, NOW, False)


@pytest.mark.parametrize(
    ("conditions", "complete", "failed", "failing"),
    [
        ([], False, False, False),
        (["Complete"], True, False, False),
        (["SuccessCriteriaMet"], False, False, False),
        (["FailureTarget"], False, False, True),
        (["FailureTarget", "Failed"], False, True, True),
    ],
)
def test_a_job_is_over_when_all_its_pods_are(conditions: list[str], complete: bool, failed: bool, failing: bool) -> None:
    """Design §4: at Failed, not at FailureTarget."""
    status = {"conditions": [{"type": kind, "status": "True", "reason": "R", "message": "m"} for kind in conditions]}
    read = Workload.from_manifest({"metadata": {"name": "demo-r1", "uid": "u", "creationTimestamp": TIME}, "spec": {}, "status": status})
    assert (read.complete, read.failed, read.failing, read.ended) == (complete, failed, failing, complete or failed)

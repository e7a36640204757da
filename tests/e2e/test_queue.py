"""A queue on a real cluster: the Job controller and the trainer under a stand-in for Kueue (L-06, L-09).

Kueue itself is not there. The stand-in does by hand what Kueue does to a Job: it makes the Workload, un-suspends with a node selector
injected, and preempts by ``suspend: true`` with the template restored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_operator.plan.kueue import LABEL_JOB_UID
from tests.e2e.conftest import JobFactory
from tests.support.platform import Kubectl, Platform, eventually

pytestmark = pytest.mark.e2e
WORKLOADS: dict[str, Any] = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "workloads.kueue.x-k8s.io", "annotations": {"api-approved.kubernetes.io": "unapproved, a stand-in for tests"}},
    "spec": {
        "group": "kueue.x-k8s.io",
        "scope": "Namespaced",
        "names": {"kind": "Workload", "listKind": "WorkloadList", "plural": "workloads", "singular": "workload"},
        "versions": [
            {
                "name": "v1beta1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}},
                "subresources": {"status": {}},
            }
        ],
    },
}
NODE = {"kubernetes.io/os": "linux"}
SPEC = {"resources": {"queue": "team-a", "queuePriorityClass": "low"}, "training": {"maxSteps": 500}, "checkpoint": {"steps": 50}}


class Queue:
    """The stand-in, for one Job."""

    def __init__(self, kubectl: Kubectl, job: str) -> None:
        self._kubectl, self.job = kubectl, job

    def take_in(self) -> dict[str, Any]:
        """Make the Workload of the Job the operator created, suspended and labelled."""
        job = eventually(lambda: self._kubectl.get("job", self.job), within=60, what=f"Job {self.job}")
        assert job["spec"]["suspend"] is True
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self.job, "uid": job["metadata"]["uid"], "controller": True}
        metadata = {"name": f"job-{self.job}", "labels": {LABEL_JOB_UID: job["metadata"]["uid"]}, "ownerReferences": [owner]}
        self._kubectl.apply({"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "metadata": metadata})
        self._say(QuotaReserved=("False", "Pending", "insufficient unused quota for cpu in flavor default, 200m more needed"))
        return job

    def admit(self) -> None:
        """Quota is there: the template gets the flavor's node selector, the Job is un-suspended."""
        self._say(QuotaReserved=("True", "QuotaReserved", ""), Admitted=("True", "Admitted", ""), Evicted=("False", "QuotaReserved", ""))
        self._patch({"spec": {"template": {"spec": {"nodeSelector": NODE}}}})
        self._patch({"spec": {"suspend": False}})

    def preempt(self) -> None:
        """Somebody of higher priority needs the place."""
        why = "Preempted to accommodate a workload due to prioritization in the ClusterQueue"
        self._say(Evicted=("True", "Preempted", why), QuotaReserved=("False", "Pending", why), Admitted=("False", "NoReservation", ""))
        self._patch({"spec": {"suspend": True}})

    def _patch(self, patch: dict[str, Any]) -> None:
        self._kubectl("patch", "job", self.job, "--type=merge", "-p", json.dumps(patch))

    def _say(self, **changes: tuple[str, str, str]) -> None:
        found = self._kubectl.get("workloads.kueue.x-k8s.io", f"job-{self.job}") or {}
        old = {c["type"]: c for c in found.get("status", {}).get("conditions", [])}
        new = {
            kind: {"type": kind, "status": status, "reason": reason, "message": text} for kind, (status, reason, text) in changes.items()
        }
        status = {"status": {"conditions": list({**old, **new}.values())}}
        self._kubectl(
            "patch", "workloads.kueue.x-k8s.io", f"job-{self.job}", "--subresource=status", "--type=merge", "-p", json.dumps(status)
        )


@pytest.fixture(scope="module")
def kueue(platform: Platform) -> Iterator[None]:
    """Kueue's kind, unless a real Kueue is installed: then the stand-in would be in its way."""
    if platform.kubectl.get("crd", "workloads.kueue.x-k8s.io") is not None:
        pytest.skip("this cluster has a Kueue of its own")
    platform.kubectl.apply(WORKLOADS)
    platform.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd/workloads.kueue.x-k8s.io")
    yield
    platform.kubectl("delete", "crd", "workloads.kueue.x-k8s.io", "--wait=true", "--timeout=60s")


def test_queued_admitted_preempted_and_admitted_again(kueue: None, run_job: JobFactory, namespace: Kubectl) -> None:
    """The same Job waits, trains, gives its place up with a checkpoint, and goes on from it: two attempts, one run, no step lost."""
    job = run_job("queued", SPEC)
    queue = Queue(namespace, "queued-r1")
    made = queue.take_in()
    assert {key: value for key, value in made["metadata"]["labels"].items() if key.startswith("kueue")} == {
        "kueue.x-k8s.io/queue-name": "team-a",
        "kueue.x-k8s.io/priority-class": "low",
    }
    eventually(lambda: job.condition("Admitted").get("reason") == "AwaitingQuota", within=60, what="Kueue's words in the status")
    eventually(lambda: "200m more needed" in job.condition("Ready")["message"], within=60, what="why there is no quota")
    assert job.phase == "Queued"
    queue.admit()
    job.wait_step(20)
    queue.preempt()
    job.wait_phase("Queued")
    eventually(lambda: not job.pods(), within=120, what="the preempted pods are gone")
    eventually(lambda: job.condition("Admitted").get("reason") == "Preempted", within=60, what="a preempted run")
    queue.admit()
    status = job.wait_phase("Succeeded")
    assert (status["run"], status["attemptCount"]) == (1, 2)
    first, second = status["attempts"]
    assert (first["outcome"], second["reason"]) == ("Preempted", "Preempted")
    assert second["fromStep"] >= 20
    assert status.get("usage", {}).get("lostSteps", 0) == 0
    assert [row.step for row in job.rows().values()] == list(range(1, 501))


def test_pause_and_resume_of_an_admitted_run(kueue: None, run_job: JobFactory, namespace: Kubectl) -> None:
    """A pause deletes the Job (and so gives its quota back) after the checkpoint; the next run is queued anew."""
    job = run_job("paused", SPEC)
    queue = Queue(namespace, "paused-r1")
    queue.take_in()
    queue.admit()
    job.wait_step(10)
    namespace("patch", "finetunejob", "paused", "--type=merge", "-p", json.dumps({"spec": {"suspend": True}}))
    status = job.wait_phase("Paused")
    assert status["pause"]["saved"] is True, job.story()
    assert namespace.get("job", "paused-r1") is None
    namespace("patch", "finetunejob", "paused", "--type=merge", "-p", json.dumps({"spec": {"suspend": False}}))
    again = Queue(namespace, "paused-r2")
    again.take_in()
    again.admit()
    assert job.wait_phase("Succeeded")["attempts"][-1]["fromStep"] == status["pause"]["step"]

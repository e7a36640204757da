"""A stand-in for Kueue over the simulated cluster: it does to Jobs with a queue label what Kueue does, no more.

It takes in suspended Jobs, un-suspends them with node selectors injected once there is quota, preempts by ``suspend: true`` (restoring the
template), admits again, un-suspends what others suspend while the Workload is admitted, and counts a group's quota as used until its pods
are gone. Jobs are never written by the operator, so that there is no edit of a template to refuse (the tests look at its calls).
"""

from __future__ import annotations

from typing import Any

from finetune_operator.plan.kueue import LABEL_JOB_UID, LABEL_QUEUE
from tests.support.fake_api import Manifest
from tests.support.operator_cluster import NAMESPACE, FakeCluster

FLAVOUR = {"cloud.example.com/pool": "reserved"}


class QueuedCluster(FakeCluster):
    """A cluster whose queue ``team-a`` has room for ``quota`` pods."""

    def __init__(self, *, quota: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.quota = quota
        self.rival = 0
        """Pods of a workload of higher priority that wants in."""
        self.rival_runs = False
        self.pods_linger = False
        """Pods that were told to end are still saving."""

    # --- what a test does ---

    def rival_arrives(self, pods: int = 1) -> None:
        """A workload of higher priority: whoever is in its way is preempted."""
        self.rival = pods
        for workload in self.api.find("workloads"):
            if self._is(workload, "Admitted"):
                self._evict(workload)
        self.step()

    def rival_leaves(self) -> None:
        """Its quota is free again."""
        self.rival, self.rival_runs = 0, False
        self.step()

    def suspend_by_hand(self, name: str) -> None:
        """Somebody suspends a Job that Kueue has admitted."""
        self.api.change("jobs", NAMESPACE, name, {"spec": {"suspend": True}})

    # --- Kueue ---

    def step(self) -> None:
        """The controllers and Kueue, until none of them has anything to do."""
        for _ in range(50):
            before = self.fingerprint()
            super().step()
            self._schedule_workloads()
            if self.fingerprint() == before:
                return
        raise AssertionError("Kueue does not come to rest")

    def _control(self, job: Manifest) -> None:
        if LABEL_QUEUE in job["metadata"]["labels"]:
            self._take_in(job)
            found = self.api.get("jobs", job["metadata"]["name"])
            assert found is not None
            job = found
        if not job["spec"].get("suspend"):
            super()._control(job)
        elif (job.get("status") or {}).get("startTime") is not None:
            self._stop_pods(job)

    def _run_pod(self, pod: Manifest) -> None:
        if not (self.pods_linger and "deletionTimestamp" in pod["metadata"]):
            super()._run_pod(pod)

    def _stop_pods(self, job: Manifest) -> None:
        """The Job controller ends a suspended Job's pods without counting them as failed."""
        pods = self._pods_of(job)
        for pod in pods:
            if "deletionTimestamp" not in pod["metadata"]:
                self.api.delete(("pods", NAMESPACE, pod["metadata"]["name"]))
        if not pods:
            self.trainers.pop(job["metadata"]["name"], None)
            self._job_status(job, startTime=None, active=0)

    def _take_in(self, job: Manifest) -> None:
        """The webhook at creation, and the Workload."""
        metadata = job["metadata"]
        if self._workload_of(job) is None and "deletionTimestamp" not in metadata:
            assert job["spec"].get("suspend"), "the operator creates a Job for a queue suspended"
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"], "controller": True}
            labels = {LABEL_JOB_UID: metadata["uid"]}
            name = {"name": f"job-{metadata['name']}", "namespace": NAMESPACE, "labels": labels, "ownerReferences": [owner]}
            workload = self.api.add("workloads", {"metadata": name, "spec": {"queueName": metadata["labels"][LABEL_QUEUE]}})
            self._say(workload, QuotaReserved=("False", "Pending", "insufficient unused quota for nvidia.com/gpu, 1 more needed"))

    def _schedule_workloads(self) -> None:
        self.rival_runs = self.rival_runs or (self.rival > 0 and self._used() + self.rival <= self.quota)
        for workload in self.api.find("workloads"):
            job = self.api.get("jobs", workload["metadata"]["ownerReferences"][0]["name"])
            if job is None or "deletionTimestamp" in job["metadata"]:
                continue
            wants = int(job["spec"]["completions"])
            if self._is(workload, "Admitted"):
                if job["spec"].get("suspend"):
                    self._unsuspend(job)
            elif not self._pods_of(job) and self._used() + wants + self.rival <= self.quota:
                self._say(
                    workload,
                    QuotaReserved=("True", "QuotaReserved", "Quota reserved in ClusterQueue gpus"),
                    Admitted=("True", "Admitted", "The workload is admitted"),
                    Evicted=("False", "QuotaReserved", "Previously: Preempted"),
                )
                self._unsuspend(job)

    def _unsuspend(self, job: Manifest) -> None:
        template = {"spec": {"nodeSelector": FLAVOUR}}
        self.api.change("jobs", NAMESPACE, job["metadata"]["name"], {"spec": {"suspend": False, "template": template}})

    def _evict(self, workload: Manifest) -> None:
        why = "Preempted to accommodate a workload (UID: rival) due to prioritization in the ClusterQueue"
        self._say(
            workload,
            Evicted=("True", "Preempted", why),
            Preempted=("True", "InClusterQueue", why),
            Admitted=("False", "NoReservation", ""),
            QuotaReserved=("False", "Pending", why),
        )
        name = workload["metadata"]["ownerReferences"][0]["name"]
        template = {"spec": {"nodeSelector": None}}
        self.api.change("jobs", NAMESPACE, name, {"spec": {"suspend": True, "template": template}})

    def _used(self) -> int:
        """Pods whose quota is taken: of admitted groups, of those whose pods are not gone, of the rival."""
        ours = 0
        for job in self.api.find("jobs"):
            workload = self._workload_of(job)
            if workload is not None and (self._is(workload, "Admitted") or self._pods_of(job)):
                ours += int(job["spec"]["completions"])
        return ours + (self.rival if self.rival_runs else 0)

    # --- looking ---

    def _workload_of(self, job: Manifest) -> Manifest | None:
        return self.api.get("workloads", f"job-{job['metadata']['name']}")

    def _pods_of(self, job: Manifest) -> list[Manifest]:
        return [pod for pod in self.api.find("pods") if pod["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"]]

    @staticmethod
    def _is(workload: Manifest, kind: str) -> bool:
        conditions = (workload.get("status") or {}).get("conditions") or ()
        return any(c["type"] == kind and c["status"] == "True" for c in conditions)

    def _say(self, workload: Manifest, **changes: tuple[str, str, str]) -> None:
        old = {
            c["type"]: c
            for c in ((self.api.get("workloads", workload["metadata"]["name"]) or {}).get("status") or {}).get("conditions") or ()
        }
        new = {kind: {"type": kind, "status": s, "reason": r, "message": m} for kind, (s, r, m) in changes.items()}
        self.api.change("workloads", NAMESPACE, workload["metadata"]["name"], {"status": {"conditions": list({**old, **new}.values())}})

"""A FineTuneJob in each phase, as the API server stores it: lived through in the simulated cluster, or written by the plan for any phase.

Run as a program, it records the lived ones where the GitOps files keep them for their tests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from finetune_api.contract.failures import EXIT_USER_ERROR, FailureClass
from finetune_api.crd import nobody_looked
from finetune_api.models.status import Phase
from finetune_operator.plan.document import status_document
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.observed import Observed
from finetune_operator.plan.status import finish_status
from tests.support.fake_api import Manifest, duplicate
from tests.support.fake_kueue import QueuedCluster
from tests.support.operator_cluster import NAMESPACE, SETTINGS, FakeCluster, failure, job_manifest
from tests.support.operator_values import NOW, make_job

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "deploy/argocd/finetune.dev/FineTuneJob/testdata"


def written(phase: Phase) -> Manifest:
    """A job of which the plan says nothing but its phase: what every phase has in common, whatever led to it."""
    draft = Draft(Observed(job=make_job()), NOW, SETTINGS)
    draft.show(phase, phase.value)
    finish_status(draft)
    job = job_manifest()
    job["metadata"] |= {"generation": 1, "resourceVersion": "1", "uid": "uid-job"}
    return {**job, "status": status_document(draft.status)}


async def lived() -> dict[str, Manifest]:
    """Jobs as they come to be, by what they show."""
    records: dict[str, Manifest] = {}

    def record(name: str, cluster: FakeCluster) -> None:
        records[name] = _stored(cluster)

    cluster = FakeCluster()
    cluster.create()
    records["new"] = {**_stored(cluster), "status": nobody_looked("job")}
    await cluster.settle()
    record("starting", cluster)
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    record("training", cluster)
    cluster.edit({"logging": {"steps": 5}})
    record("stale", cluster)
    for activity in ("Evaluating", "Exporting"):
        await _report(cluster, activity)
        record(activity.lower(), cluster)
    await _report(cluster, "Training")
    cluster.edit({"suspend": True})
    await cluster.reconcile()
    record("pausing", cluster)
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    record("paused", cluster)
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Resuming")
    record("resuming", cluster)
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    cluster.edit({"replicas": 0})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    record("scaled-to-zero", cluster)
    cluster.edit({"replicas": 1, "desiredState": "Stopped"})
    await cluster.until(lambda: cluster.phase == "Stopped", train=1)
    record("stopped", cluster)
    cluster.edit({"desiredState": "Running"})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    cluster.edit({"desiredState": "Stopped"})
    await cluster.reconcile()
    record("stopping", cluster)
    cluster.edit({"desiredState": "Cancelled"})
    await cluster.until(lambda: cluster.phase == "Cancelled", train=1)
    record("cancelled", cluster)
    return {**records, **await _others()}


async def _others() -> dict[str, Manifest]:
    """Jobs with a fate of their own."""
    refused = FakeCluster()
    refused.create({"presetRef": {"name": "nowhere"}})
    await refused.reconcile()
    checked = FakeCluster()
    checked.create({"resources": {"device": "gpu"}})
    await checked.reconcile()
    queued = QueuedCluster()
    queued.rival_arrives()
    queued.create({"resources": {"device": "cpu", "queue": "team-a"}})
    await queued.until(lambda: queued.status.reason == "AwaitingQuota")
    failed = FakeCluster()
    failed.create()
    await failed.until(lambda: failed.phase == "Training", train=1)
    failed.end_pod("demo-r1-0", EXIT_USER_ERROR, failure(FailureClass.DATA, EXIT_USER_ERROR, message="Row 3 has no messages."))
    await failed.until(lambda: failed.phase == "Failed")
    finished = FakeCluster()
    finished.create()
    await finished.until(lambda: finished.phase == "Succeeded", train=20)
    edited = FakeCluster()
    edited.create()
    await edited.until(lambda: edited.phase == "Training", train=1)
    edited.edit({"training": {"seed": 7}})
    await edited.reconcile()
    clusters = {
        "pending": refused, "validating": checked, "queued": queued, "failed": failed, "succeeded": finished, "refused-edit": edited,
    }  # fmt: skip
    return {name: _stored(cluster) for name, cluster in clusters.items()}


def _stored(cluster: FakeCluster) -> Manifest:
    """The job now; the API server keeps no empty map of annotations."""
    manifest: Manifest = duplicate(cluster.manifest)
    if not manifest["metadata"].get("annotations"):
        manifest["metadata"].pop("annotations", None)
    return manifest


async def _report(cluster: FakeCluster, activity: str) -> None:
    """The trainer says what it does."""
    cluster.api.change("finetunejobs", NAMESPACE, cluster.key.name, {"status": {"progress": {"phase": activity}}})
    await cluster.reconcile()


def with_annotations(manifest: Manifest, annotations: Mapping[str, str]) -> Manifest:
    """The same object with other annotations."""
    metadata: dict[str, Any] = {**manifest["metadata"], "annotations": dict(annotations)}
    return {**manifest, "metadata": metadata}


def main() -> None:
    """Write the records."""
    for name, manifest in asyncio.run(lived()).items():
        (RECORDS / f"{name}.yaml").write_text(yaml.safe_dump(manifest, sort_keys=True, width=140), encoding="utf-8")


if __name__ == "__main__":
    main()

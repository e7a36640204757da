"""The in-memory API server's server-side apply and watches; tests/integration/test_recorded_calls.py holds them against the real one."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.cluster.client import MERGE_PATCH, Answer
from tests.support.fake_api import APPLY_PATCH
from tests.support.operator_cluster import JOBS_PATH, NAMESPACE, FakeCluster, job_manifest

LABELS = {"team": "a"}
CONDITION = {"type": "Checked", "status": "True", "reason": "Test", "message": "", "lastTransitionTime": "2026-11-21T08:00:00Z"}


def put_on(cluster: FakeCluster, part: dict[str, Any], subresource: str = "", **query: str) -> Answer:
    """Server-side apply of part of a job."""
    manifest = {**{name: job_manifest(cluster.key.name)[name] for name in ("apiVersion", "kind")}, **part}
    manifest["metadata"] = {"name": cluster.key.name, **part.get("metadata", {})}
    path = f"{JOBS_PATH}/{cluster.key.name}{subresource}"
    return cluster.api.send("PATCH", path, manifest, content_type=APPLY_PATCH, **query)


def applies(cluster: FakeCluster) -> None:
    """All that server-side apply does to a job, on a server that says what the real one says."""
    assert cluster.apply({"replicas": 2, "training": {"epochs": 2, "learningRate": 0.1}}, manager="a").status == 201
    assert cluster.apply({"replicas": 2, "training": {"epochs": 2}}, manager="a").body["spec"]["training"] == {"epochs": 2}
    assert cluster.apply({"replicas": 2}, manager="b").status == 200, "what is so already may have several managers"
    refused = cluster.apply({"replicas": 1, "training": {"epochs": 3}}, manager="b")
    assert refused.status == 409
    assert refused.body["message"] == 'Apply failed with 2 conflicts: conflicts with "a":\n- .spec.replicas\n- .spec.training.epochs'
    assert cluster.apply({"replicas": 1}, manager="b", force=True).body["spec"]["replicas"] == 1
    assert "training" not in cluster.apply({}, manager="a").body["spec"], "what nobody manages any more is gone"
    assert cluster.manifest["spec"]["replicas"] == 1, "it is b's now"
    assert cluster.apply({}, manager="b").body["spec"]["replicas"] == 1, "given up: the default"
    cluster.scale(0)
    assert cluster.apply({}, manager="b").body["spec"]["replicas"] == 0, "a scale is nobody's"
    assert cluster.apply({"replicas": 2}, manager="a").status == 200
    cluster.edit({"replicas": 0})
    assert cluster.apply({"replicas": 2}, manager="a").body["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl-edit" using finetune.dev/v1alpha1',
            "field": ".spec.replicas",
        }
    ]
    version = cluster.manifest["metadata"]["resourceVersion"]
    assert cluster.apply({}, manager="a").body["metadata"]["resourceVersion"] == version, "nothing to change"
    cluster.edit({"pausePolicy": {"timeoutSeconds": 60}})
    assert cluster.apply({"pausePolicy": {"ifUnsaved": "Discard"}}, manager="a").status == 200, "a default is nobody's"
    policy = cluster.apply({}, manager="a").body["spec"]["pausePolicy"]
    assert (policy["timeoutSeconds"], policy["ifUnsaved"]) == (60, "Wait")


def applies_of_metadata_and_status(cluster: FakeCluster) -> None:
    """Labels and finalizers by item, status by its subresource alone, and what the server takes no apply for."""
    cluster.apply({}, manager="a")
    put_on(cluster, {"metadata": {"labels": LABELS, "finalizers": ["example.com/a"]}}, fieldManager="c")
    cluster.api.change("finetunejobs", NAMESPACE, cluster.key.name, {"metadata": {"labels": {"by": "hand"}}})
    put_on(cluster, {"metadata": {"finalizers": ["example.com/b"]}}, fieldManager="d")
    put_on(cluster, {}, fieldManager="c")
    metadata = cluster.manifest["metadata"]
    assert (metadata["labels"], metadata["finalizers"]) == ({"by": "hand"}, ["example.com/b"])
    put_on(cluster, {}, fieldManager="d")
    assert not cluster.manifest["metadata"].get("finalizers")
    assert put_on(cluster, {"status": {"reason": "Test", "conditions": [CONDITION]}}, "/status", fieldManager="e").status == 200
    assert [c["type"] for c in cluster.manifest["status"]["conditions"]] == ["Ready", "Reconciling", "Checked"]
    assert put_on(cluster, {"status": {"reason": "Other"}}, "/status", fieldManager="f").status == 409
    assert put_on(cluster, {"status": {"reason": "Ignored"}}, fieldManager="e").status == 200
    assert cluster.manifest["status"]["reason"] == "Test"
    assert put_on(cluster, {}).status == 422, "no field manager"
    assert put_on(cluster, {"metadata": {"managedFields": [{"manager": "a"}]}}, fieldManager="e").status == 400
    assert put_on(cluster, {"metadata": {"resourceVersion": "1"}}, fieldManager="e").status == 409


DEEDS = (applies, applies_of_metadata_and_status)


@pytest.mark.parametrize("deeds", DEEDS)
def test_server_side_apply(deeds: Any) -> None:
    """Field managers, conflicts, force, fields given up, defaults, subresources."""
    deeds(FakeCluster())


def seen(cluster: FakeCluster, **query: str) -> list[tuple[str, Any]]:
    """Events of a watch: type, and name or code."""
    events = cluster.api.send("GET", JOBS_PATH, watch="true", **query).body["events"]
    return [(event["type"], event["object"].get("code") or event["object"]["metadata"].get("name")) for event in events]


def test_watches_and_410() -> None:
    """From a version on, each change once; from a forgotten one 410 Expired, as an event of a watch and as the status of a list."""
    cluster = FakeCluster()
    start = cluster.api.send("GET", JOBS_PATH).body["metadata"]["resourceVersion"]
    cluster.create()
    created = cluster.manifest["metadata"]["resourceVersion"]
    cluster.scale(0)
    cluster.scale(0)
    cluster.api.delete(("finetunejobs", NAMESPACE, "demo"))
    assert seen(cluster, resourceVersion=start) == [("ADDED", "demo"), ("MODIFIED", "demo"), ("DELETED", "demo")]
    assert seen(cluster, resourceVersion=created, allowWatchBookmarks="true")[-2:] == [("DELETED", "demo"), ("BOOKMARK", None)]
    now = cluster.api.send("GET", JOBS_PATH).body["metadata"]["resourceVersion"]
    assert seen(cluster, resourceVersion=now) == []
    cluster.api.forget_the_past()
    assert seen(cluster, resourceVersion=created) == [("ERROR", 410)]
    gone = cluster.api.send("GET", JOBS_PATH, resourceVersion=created, resourceVersionMatch="Exact")
    assert (gone.status, gone.body["reason"]) == (410, "Expired")
    assert seen(cluster, resourceVersion=now) == []


def test_a_merge_patch_takes_fields_over() -> None:
    """As kubectl edit does: what it changes is the writer's alone."""
    cluster = FakeCluster()
    cluster.apply({"replicas": 2}, manager="a")
    path = f"{JOBS_PATH}/demo"
    cluster.api.send("PATCH", path, {"spec": {"replicas": 1}}, content_type=MERGE_PATCH, fieldManager="hand")
    owners = {owner.name: paths for owner, paths in cluster.api.owners(("finetunejobs", NAMESPACE, "demo")).items()}
    assert owners["hand"] == {("f:spec", "f:replicas")}
    assert ("f:spec", "f:replicas") not in owners["a"]

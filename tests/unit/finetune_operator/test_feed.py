from __future__ import annotations

import json
from typing import Any

import pytest

from finetune_operator.cluster.client import Client
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import CHILD_DELAY_SECONDS, MAX_CHILD_DELAY_SECONDS, JobFeed, JobLookup
from tests.support.fake_api import FakeApi
from tests.support.operator_cluster import NAMESPACE, job_manifest

KEY = JobKey(NAMESPACE, "demo")


class Ear:
    """A feed and what it said."""

    def __init__(self) -> None:
        self.marked: list[tuple[JobKey, float]] = []
        self.forgotten: list[JobKey] = []
        self.feed = JobFeed(lambda key, delay: self.marked.append((key, delay)), self.forgotten.append)

    def heard(self) -> list[tuple[JobKey, float]]:
        heard, self.marked = self.marked, []
        return heard


def manifest(status: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    job = job_manifest()
    job["metadata"] |= {"uid": "uid-1", "resourceVersion": "1", "generation": 1, **metadata}
    return {**job, "status": status or {}}


def progress(step: int = 1, *, phase: str = "Training", report: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"progress": {"run": 1, "attempt": 1, "phase": phase, "step": step, "report": json.dumps(report or {})}}


STOPPED = {"stopped": {"commandId": "pause-1-1", "step": 5, "saved": True}}


@pytest.fixture
def ear() -> Ear:
    """A feed that knows a training job."""
    ear = Ear()
    ear.feed.job_event(None, manifest(progress()))
    assert ear.heard() == [(KEY, 0.0)]
    return ear


@pytest.mark.parametrize("status", [progress(7), {**progress(1), "phase": "Training", "replicas": 2}])
def test_our_own_writes_mark_nothing_dirty(ear: Ear, status: dict[str, Any]) -> None:
    """Design §4: periodic progress and status writes come back as events."""
    ear.feed.job_event("MODIFIED", manifest(status, resourceVersion="2"))
    assert ear.heard() == []


@pytest.mark.parametrize(
    "metadata",
    [
        {"generation": 2},
        {"labels": {"team": "x"}},
        {"annotations": {"finetune.dev/request": "retry/1"}},
        {"finalizers": ["finetune.dev/cleanup"]},
        {"deletionTimestamp": "2026-11-21T08:00:00Z"},
        {"uid": "uid-2"},
    ],
)
def test_what_the_user_does_is_looked_at(ear: Ear, metadata: dict[str, Any]) -> None:
    ear.feed.job_event("MODIFIED", manifest(progress(), **metadata))
    assert ear.heard() == [(KEY, 0.0)]


@pytest.mark.parametrize("status", [progress(report=STOPPED), progress(phase="Evaluating"), progress(report={"warnings": {"W": "text"}})])
def test_what_another_replica_stored_is_looked_at(ear: Ear, status: dict[str, Any]) -> None:
    """Every replica serves the endpoint; the leader acts on all of it."""
    ear.feed.job_event("MODIFIED", manifest(status))
    assert ear.heard() == [(KEY, 0.0)]
    ear.feed.job_event("MODIFIED", manifest(status))
    assert ear.heard() == []


def test_what_this_replica_stored_and_acted_on_is_no_news(ear: Ear) -> None:
    ear.feed.noted(KEY, frozenset({("stopped", "pause-1-1")}))
    ear.feed.job_event("MODIFIED", manifest(progress(report=STOPPED)))
    assert ear.heard() == []


def test_children_are_looked_at_a_little_later(ear: Ear) -> None:
    """Changes of Jobs and pods come in bursts."""
    child = {"metadata": {"name": "demo-r1-0", "namespace": NAMESPACE, "labels": {"finetune.dev/job": "demo"}}}
    ear.feed.child_event(child)
    assert ear.heard() == [(KEY, CHILD_DELAY_SECONDS)]
    ear.feed.child_event({"metadata": {**child["metadata"], "labels": {"finetune.dev/job": "unknown"}}})
    ear.feed.child_event({"metadata": {"name": "x", "namespace": NAMESPACE}})
    assert ear.heard() == []


def settled() -> dict[str, Any]:
    conditions = [{"type": "Reconciling", "status": "False", "reason": "Done"}]
    return {"phase": "Succeeded", "observedGeneration": 1, "conditions": conditions, **progress()}


def test_children_wait_while_the_queue_is_behind() -> None:
    """When many jobs are created at once, first looks come first; but no child waits for ever."""
    lag, marked = [0.0], list[float]()
    feed = JobFeed(lambda _key, delay: marked.append(delay), lambda _key: None, lag=lambda: lag[0])
    feed.job_event("ADDED", manifest(progress()))
    for lag[0] in (0.0, 2.0, 600.0):
        feed.child_event({"metadata": {"name": "demo-r1", "namespace": NAMESPACE, "labels": {"finetune.dev/job": "demo"}}})
    assert marked[1:] == [CHILD_DELAY_SECONDS, CHILD_DELAY_SECONDS + 2.0, MAX_CHILD_DELAY_SECONDS]


def test_finished_and_cleared_jobs_are_left_alone() -> None:
    """Trial 21: ten thousand old jobs cost nothing."""
    ear = Ear()
    ear.feed.job_event(None, manifest(settled()))
    ear.feed.child_event({"metadata": {"name": "x", "namespace": NAMESPACE, "labels": {"finetune.dev/job": "demo"}}})
    assert ear.heard() == []
    assert ear.feed.unsettled() == []
    ear.feed.job_event("MODIFIED", manifest(settled(), generation=2))
    assert ear.heard() == [(KEY, 0.0)]


def test_a_deleted_job_is_forgotten(ear: Ear) -> None:
    ear.feed.job_event("DELETED", manifest(progress()))
    assert (len(ear.feed), ear.forgotten, ear.heard()) == (0, [KEY], [])


def test_a_job_whose_deletion_was_missed_is_dropped(ear: Ear) -> None:
    """After a re-list no DELETED event comes: the next look finds it gone."""
    ear.feed.drop(KEY)
    assert (ear.feed.get(KEY), ear.forgotten) == (None, [KEY])


async def test_a_job_the_watch_does_not_know_yet_is_read() -> None:
    api = FakeApi()
    api.add("finetunejobs", job_manifest())
    lookup = JobLookup(Ear().feed, Client(api))
    found = await lookup.find(KEY)
    assert found is not None
    assert found.uid == "uid-1"
    assert lookup.known(KEY) is None
    assert await lookup.find(JobKey(NAMESPACE, "none")) is None

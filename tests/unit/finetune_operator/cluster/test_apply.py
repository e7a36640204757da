from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_api.models.status import FineTuneJobStatus, Phase
from finetune_operator.cluster.apply import ExistsError, apply, merge_patch, write_status
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import ConflictError, TakenError
from finetune_operator.plan.configmap import build_config_map
from finetune_operator.plan.decision import CreateRun, DeleteJob, SetFinalizers
from finetune_operator.plan.document import status_document
from finetune_operator.plan.observed import JobObject
from finetune_operator.plan.service import build_service
from finetune_operator.plan.workload import build_job
from tests.support.fake_api import FakeApi, merge
from tests.support.operator_cluster import NAMESPACE, SETTINGS, job_manifest
from tests.support.operator_values import make_config

LEAVES = st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2) | st.lists(st.integers(0, 2), max_size=2)
DOCUMENTS = st.recursive(
    st.dictionaries(st.text("xyz", min_size=1, max_size=1), LEAVES.filter(lambda leaf: leaf is not None), max_size=3),
    lambda inner: st.dictionaries(st.text("xyz", min_size=1, max_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(before=DOCUMENTS, after=DOCUMENTS)
def test_a_merge_patch_makes_one_document_the_other(before: dict[str, Any], after: dict[str, Any]) -> None:
    patch = merge_patch(before, after, before)
    assert without_empty(merge(before, patch)) == without_empty(after)
    assert merge_patch(after, after, after) == {}


def without_empty(value: Any) -> Any:
    """Empty objects are what a merge patch cannot make, and what a status never has."""
    if not isinstance(value, dict):
        return value
    items = {key: without_empty(item) for key, item in value.items()}
    return {key: item for key, item in items.items() if item != {}}


async def no_ca(_namespace: str) -> None:
    """Nothing to publish."""


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    api.add("finetunejobs", job_manifest())
    return api


def read_job(api: FakeApi) -> JobObject:
    manifest = api.get("finetunejobs", "demo")
    assert manifest is not None
    return JobObject.from_manifest(manifest)


def run_of(job: JobObject, spec: dict[str, Any] | None = None) -> CreateRun:
    config = make_config({"replicas": 2, **(spec or {})})
    return CreateRun(
        run=1,
        config_map=build_config_map(job, config, "demo-r1", "trainer", SETTINGS),
        service=build_service(job, config, SETTINGS),
        job=build_job(job, config, SETTINGS, reason="Created"),
    )


def made(api: FakeApi) -> list[str]:
    return [plural for plural, kind, _ in api.history if kind == "ADDED" and plural != "finetunejobs"]


async def test_a_run_is_made_once(api: FakeApi) -> None:
    """Design §4: the Job comes last, so that a Job means a whole run; what is ours counts as made."""
    job = read_job(api)
    for _ in range(2):
        await apply(Client(api), job, run_of(job), no_ca)
    assert made(api) == ["configmaps", "services", "jobs"]


async def test_a_leftover_of_a_broken_creation_is_made_anew(api: FakeApi) -> None:
    """Only the ConfigMap was there, and the spec has changed since."""
    job = read_job(api)
    stale = run_of(job, {"training": {"seed": 7}}).config_map
    api.add("configmaps", stale)
    await apply(Client(api), job, run_of(job), no_ca)
    found = api.get("configmaps", "demo-r1")
    assert found is not None
    assert found["data"] == run_of(job).config_map["data"]


async def test_a_whole_run_from_other_values_is_not_touched(api: FakeApi) -> None:
    job = read_job(api)
    await apply(Client(api), job, run_of(job, {"training": {"seed": 7}}), no_ca)
    before = api.get("configmaps", "demo-r1")
    with pytest.raises(ExistsError):
        await apply(Client(api), job, run_of(job), no_ca)
    assert api.get("configmaps", "demo-r1") == before


async def test_a_name_that_is_taken_by_somebody_else_is_said(api: FakeApi) -> None:
    job = read_job(api)
    api.add("services", {"kind": "Service", "metadata": {"name": "demo-r1", "namespace": NAMESPACE}})
    with pytest.raises(TakenError, match="Service default/demo-r1 exists and does not belong to demo"):
        await apply(Client(api), job, run_of(job), no_ca)


async def test_a_stalled_old_leader_changes_nothing(api: FakeApi) -> None:
    """Issue §4: its view is stale: the status write and the finalizer are refused, the deletion hits nobody."""
    stale = read_job(api)
    await apply(Client(api), stale, run_of(stale), no_ca)
    old = api.get("jobs", "demo-r1")
    assert old is not None
    api.remove(("jobs", NAMESPACE, "demo-r1"))
    api.change("finetunejobs", NAMESPACE, "demo", {"status": {"phase": "Paused"}})
    api.add("jobs", {"kind": "Job", "metadata": {"name": "demo-r1", "namespace": NAMESPACE}, "spec": {}})
    with pytest.raises(ConflictError):
        await write_status(Client(api), stale, stale.status.model_copy(update={"phase": Phase.TRAINING}))
    with pytest.raises(ConflictError):
        await apply(Client(api), stale, SetFinalizers(finalizers=("x",)), no_ca)
    with pytest.raises(ConflictError):
        await apply(Client(api), stale, DeleteJob(name="demo-r1", uid=old["metadata"]["uid"], propagation="Foreground"), no_ca)
    assert api.get("jobs", "demo-r1") is not None


async def test_a_status_is_written_only_when_it_differs(api: FakeApi) -> None:
    job = read_job(api)
    status = job.status.model_copy(update={"phase": Phase.STARTING, "run": 1})
    assert await write_status(Client(api), job, status) is True
    api.change("finetunejobs", NAMESPACE, "demo", {"status": {"progress": {"step": 5}}})
    assert await write_status(Client(api), read_job(api), status) is False
    found = api.get("finetunejobs", "demo")
    assert found is not None
    assert found["status"] == {**status_document(status), "progress": {"step": 5}}


def test_the_fields_that_columns_and_scale_read_are_always_there() -> None:
    assert status_document(FineTuneJobStatus()) == {
        "phase": "Pending", "run": 0, "replicas": 0, "lastReplicas": 0, "attemptCount": 0, "observedGeneration": 0,
    }  # fmt: skip


async def test_a_job_deleted_meanwhile_is_no_error(api: FakeApi) -> None:
    """It counts as changed since it was read: the next look finds it gone and ends."""
    job = read_job(api)
    api.remove(("finetunejobs", NAMESPACE, "demo"))
    with pytest.raises(ConflictError, match="deleted since it was read"):
        await write_status(Client(api), job, job.status.model_copy(update={"phase": Phase.STARTING}))

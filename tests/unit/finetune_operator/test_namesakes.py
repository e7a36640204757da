"""Names for people: of two objects of a namespace with the same one the later says so, and nothing else follows."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_operator.plan.namesake import DISPLAY_NAME_TAKEN
from tests.support.dataset_cluster import DatasetCluster
from tests.support.fake_api import Manifest
from tests.support.operator_cluster import NAMESPACE, FakeCluster, job_manifest

SHOWN = "Orders, v2 = final \\ 1"
"""With every sign that a field selector has to escape."""


def older_job(cluster: FakeCluster, name: str = "other", shown: str = SHOWN, namespace: str = NAMESPACE) -> None:
    cluster.api.add("finetunejobs", job_manifest(name, {"displayName": shown}), namespace=namespace)
    cluster.clock.advance(1.0)


def said(conditions: list[Any]) -> str:
    return next((each.message for each in conditions if each.type == DISPLAY_NAME_TAKEN), "")


async def test_the_later_job_names_the_older_one_and_runs() -> None:
    """J-02, X43: advice with a warning event, once; it goes when the name is another one."""
    cluster = FakeCluster()
    older_job(cluster)
    cluster.create({"displayName": SHOWN})
    await cluster.until(lambda: cluster.status.run == 1)
    assert said(cluster.status.conditions) == (
        f"spec.displayName: {SHOWN} is that of FineTuneJob other already, which was there before; write another one"
    )
    assert cluster.story().count(DISPLAY_NAME_TAKEN) == 1
    cluster.edit({"displayName": "Orders, v3"})
    await cluster.until(lambda: not said(cluster.status.conditions), train=1)
    assert cluster.status.run == 1


async def test_the_older_job_is_left_alone() -> None:
    """J-02: also where it is looked at again after the later one came."""
    cluster = FakeCluster()
    cluster.create({"displayName": SHOWN})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.clock.advance(1.0)
    cluster.api.add("finetunejobs", job_manifest("later", {"displayName": SHOWN}), namespace=NAMESPACE)
    cluster.edit({"logging": {"steps": 3}})
    await cluster.settle()
    assert said(cluster.status.conditions) == ""


@pytest.mark.parametrize("other", [{"shown": "Orders"}, {"namespace": "elsewhere"}])
async def test_other_names_and_namespaces_do_not_count(other: dict[str, Any]) -> None:
    cluster = FakeCluster()
    older_job(cluster, **other)
    cluster.create({"displayName": SHOWN})
    await cluster.until(lambda: cluster.status.run == 1)
    assert said(cluster.status.conditions) == ""


async def test_a_job_without_such_a_name_costs_no_look_at_others() -> None:
    cluster = FakeCluster()
    cluster.create()
    await cluster.until(lambda: cluster.status.run == 1)
    assert not any(call.method == "GET" and call.path.endswith("/finetunejobs") for call in cluster.api.calls)


async def test_the_later_dataset_names_the_older_one_and_is_ready() -> None:
    """D-12: jobs go by metadata.name, so it can be used all the same; another look keeps what was said."""
    cluster = DatasetCluster()
    other: Manifest = {"metadata": {"name": "first"}, "spec": {"uri": "configmap://rows/train.jsonl", "displayName": SHOWN}}
    cluster.api.add("datasets", other, namespace=NAMESPACE)
    cluster.clock.advance(1.0)
    cluster.add_dataset(displayName=SHOWN)
    await cluster.rest()
    assert cluster.found.phase == "ReadyForTraining"
    assert said(list(cluster.found.conditions)).startswith(f"spec.displayName: {SHOWN} is that of Dataset first already")
    cluster.edit_dataset(displayName="Orders, v3")
    await cluster.rest()
    assert said(list(cluster.found.conditions)) == ""

"""Jobs with the preset auto: their numbers show where they come from, and stay what their first run had."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.advice import PRESET_ASSUMES
from finetune_api.constants import API_VERSION, CLUSTER_PRESET_KIND, GPU_TYPE_KIND
from finetune_api.presets import SHIPPED
from tests.support.dataset_cluster import DatasetCluster
from tests.support.operator_cluster import NAMESPACE


@pytest.fixture
async def cluster() -> DatasetCluster:
    """With a Dataset that is ready, and a GpuType of 80 GiB."""
    made = DatasetCluster()
    made.add_dataset()
    preset = {"apiVersion": API_VERSION, "kind": CLUSTER_PRESET_KIND, "metadata": {"name": "auto"}, "spec": dict(SHIPPED["auto"].spec)}
    made.api.add("clusterfinetunepresets", preset, namespace="")
    gpus = {"apiVersion": API_VERSION, "kind": GPU_TYPE_KIND, "metadata": {"name": "big"}, "spec": {"memory": "80Gi"}}
    made.api.add("gputypes", gpus, namespace="")
    await made.rest()
    return made


def create(cluster: DatasetCluster, **spec: Any) -> None:
    own = {"presetRef": {"name": "auto"}, "dataset": {"uri": "ref:rows"}, "training": None}
    cluster.create({**own, "resources": {"device": "gpu", "gpuType": "big"}, **spec})


def reckoned(cluster: DatasetCluster) -> dict[str, tuple[str, str]]:
    """Path -> value and reason, where there is one."""
    return {path: (each.value, each.reason) for path, each in cluster.status.resolved.items() if each.reason is not None}


async def test_values_come_with_their_reasons(cluster: DatasetCluster) -> None:
    """K-11, A-08: from GpuType and Dataset; source preset, as with other presets."""
    create(cluster)
    await cluster.until(lambda: cluster.status.run == 1)
    rows = cluster.found.examples
    memory = "GpuType big: 80Gi of GPU memory (24 GiB and more)"
    assert reckoned(cluster) == {
        "training.batchSize": ("8", memory),
        "training.gradAccumSteps": ("2", "16 rows per optimizer step and rank"),
        "training.maxSteps": ("500", memory),
        "training.learningRate": ("0.0002", memory),
        "training.epochs": ("2", f"{rows} rows (1000 to 10000)"),
        "dataset.evalRatio": ("0.1", f"{rows} rows (1000 to 10000)"),
    }
    assert {cluster.status.resolved[path].source for path in reckoned(cluster)} == {"preset"}
    assert cluster.run_config(1).spec.training.batch_size == 8
    assert all(condition.type != PRESET_ASSUMES for condition in cluster.status.conditions)


async def test_the_first_run_freezes_them(cluster: DatasetCluster) -> None:
    """Pinned runs: neither another GpuType nor other rows change a job that has run, nor the reasons it shows."""
    create(cluster)
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    before = reckoned(cluster)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.api.change("gputypes", "", "big", {"spec": {"memory": "12Gi"}})
    cluster.edit({"suspend": False, "resources": {"device": "gpu", "gpuType": None}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.status.run == 2
    assert cluster.run_config(2).spec.training.batch_size == 8
    assert reckoned(cluster) == before


async def test_gpus_of_unknown_memory_get_what_suits_all_and_a_warning(cluster: DatasetCluster) -> None:
    """K-11: a first run starts on any GPU, and the condition says what to name for more."""
    create(cluster, resources={"device": "gpu"})
    await cluster.until(lambda: cluster.status.run == 1)
    assert cluster.run_config(1).spec.training.batch_size == 1
    said = next(each for each in cluster.status.conditions if each.type == PRESET_ASSUMES)
    assert (said.status, said.reason) == ("True", "Advice")
    assert "choose resources.gpuType" in said.message


async def test_a_preset_of_the_namespace_is_one_like_others(cluster: DatasetCluster) -> None:
    cluster.api.add("finetunepresets", {"metadata": {"name": "auto"}, "spec": {"training": {"batchSize": 3}}}, namespace=NAMESPACE)
    create(cluster)
    await cluster.until(lambda: cluster.status.run == 1)
    assert (cluster.run_config(1).spec.training.batch_size, reckoned(cluster)) == (3, {})

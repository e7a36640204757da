"""Jobs that name a Dataset: they wait until it is ready, and run with what it stood for when they first ran."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.run_config import ChosenDataset
from finetune_operator.feed import read_known
from tests.support.dataset_cluster import DatasetCluster, look_failure
from tests.support.operator_cluster import NAMESPACE

ADDRESS = "configmap://rows/train.jsonl"


@pytest.fixture
async def cluster() -> DatasetCluster:
    """With a Dataset that is ready."""
    made = DatasetCluster()
    made.add_dataset(format="text")
    await made.rest()
    return made


def create(cluster: DatasetCluster, **spec: Any) -> None:
    """A job of the Dataset ``rows``."""
    cluster.create({"dataset": {"uri": "ref:rows"}, **spec})


async def paused(cluster: DatasetCluster, **spec: Any) -> None:
    create(cluster, **spec)
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)


async def resumed(cluster: DatasetCluster) -> None:
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training", train=1)


def message(cluster: DatasetCluster) -> str:
    return next(c.message for c in cluster.status.conditions if c.type == "Valid")


def decided(cluster: DatasetCluster, path: str) -> tuple[str, str, str | None]:
    entry = cluster.status.resolved[path]
    return entry.value, entry.source, entry.name


async def test_a_job_by_name_runs_with_the_source(cluster: DatasetCluster) -> None:
    """D-04: the run is told where the data is; status.resolved says who decided; nothing is written into spec."""
    create(cluster)
    await cluster.until(lambda: cluster.status.run == 1)
    config = cluster.run_config(1)
    assert (config.spec.dataset.uri, config.spec.dataset.format) == (ADDRESS, "text")
    assert config.dataset == ChosenDataset(name="rows", sets=["dataset.format", "dataset.uri"])
    assert "ref:" not in config.to_json()
    assert decided(cluster, "dataset.uri") == (ADDRESS, "dataset", "rows")
    assert decided(cluster, "dataset.format") == ("text", "dataset", "rows")
    assert decided(cluster, "dataset.onError") == ("fail", "default", None)
    assert cluster.manifest["spec"]["dataset"] == {"uri": "ref:rows"}


async def test_a_job_waits_until_the_dataset_is_ready() -> None:
    """AC-47: Pending with a reason; it goes on by itself."""
    cluster = DatasetCluster()
    cluster.add_dataset()
    create(cluster)
    await cluster.settle()
    assert (cluster.phase, cluster.condition("Valid"), cluster.jobs()) == ("Pending", ("False", "DatasetNotReady"), [])
    assert message(cluster) == (
        "spec.dataset.uri: ref:rows: the Dataset is Pending (nobody has looked at its present spec yet); the job goes on when it is "
        "ReadyForTraining; look with kubectl describe dataset rows"
    )
    await cluster.rest()
    await cluster.reconcile()
    assert cluster.status.run == 1


async def test_the_dataset_s_own_problem_is_said() -> None:
    """AC-47: an Invalid one is waited for as well: it may be mended."""
    cluster = DatasetCluster()
    cluster.verb_exit["look"] = look_failure(FailureClass.DATA, "train.jsonl, line 7: no text.")
    cluster.add_dataset()
    create(cluster)
    await cluster.rest()
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "DatasetNotReady")
    assert "the Dataset is Invalid (train.jsonl, line 7: no text." in message(cluster)
    assert cluster.wake == 30, "where no event of the Dataset arrives"


async def test_a_missing_dataset_is_said_and_waited_for() -> None:
    cluster = DatasetCluster()
    create(cluster)
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "DatasetNotFound")
    assert message(cluster) == (
        "spec.dataset.uri: ref:rows: there is no Dataset named rows in this namespace; choose one of kubectl get datasets, "
        "or write an address"
    )
    cluster.add_dataset()
    await cluster.rest()
    await cluster.settle(advance=True, rounds=6)
    assert cluster.status.run == 1


async def test_one_of_another_namespace_is_none() -> None:
    """Every reference is a name in the same namespace."""
    cluster = DatasetCluster()
    cluster.api.add("datasets", {"metadata": {"name": "rows"}, "spec": {"uri": ADDRESS}}, namespace="other")
    create(cluster)
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "DatasetNotFound")


async def test_an_edit_that_was_not_looked_at_is_waited_for(cluster: DatasetCluster) -> None:
    """A status of an older spec counts for nothing."""
    cluster.edit_dataset(uri="configmap://other/train.jsonl")
    create(cluster)
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "DatasetNotReady")
    await cluster.rest()
    await cluster.settle(advance=True, rounds=6)
    assert cluster.run_config(1).spec.dataset.uri == "configmap://other/train.jsonl"


@pytest.mark.parametrize("fate", ["edited", "invalid", "gone"])
async def test_a_job_that_has_run_is_not_broken_by_the_dataset(cluster: DatasetCluster, fate: str) -> None:
    """Pinned runs: another address, other rows, no Dataset any more: all of it is for new jobs."""
    await paused(cluster)
    match fate:
        case "edited":
            cluster.edit_dataset(uri="configmap://other/train.jsonl", format="messages", split="test")
            await cluster.rest()
        case "invalid":
            cluster.verb_exit["look"] = look_failure(FailureClass.DATA, "broken")
            cluster.ask("validate/1")
            await cluster.rest()
        case _:
            cluster.api.delete(("datasets", NAMESPACE, "rows"))
    await resumed(cluster)
    config = cluster.run_config(2)
    assert (config.spec.dataset.uri, config.spec.dataset.format, config.spec.dataset.split) == (ADDRESS, "text", "train")
    assert config.dataset == ChosenDataset(name="rows", sets=["dataset.format", "dataset.uri"])
    assert decided(cluster, "dataset.uri") == (ADDRESS, "dataset", "rows")
    assert cluster.condition("Valid") == ("True", "Accepted")


async def test_another_dataset_makes_it_another_training(cluster: DatasetCluster) -> None:
    """Resume class identity: the refusal names the addresses; the old name is taken."""
    manifest = {"metadata": {"name": "other"}, "spec": {"uri": "configmap://other/train.jsonl", "format": "text"}}
    stored = cluster.api.add("datasets", manifest, namespace=NAMESPACE)
    ready = {"phase": "ReadyForTraining", "observedGeneration": stored["metadata"]["generation"]}
    cluster.api.change("datasets", NAMESPACE, "other", {"status": ready})
    await paused(cluster)
    cluster.edit({"dataset": {"uri": "ref:other"}, "suspend": False})
    await cluster.settle(advance=True, rounds=3)
    assert cluster.condition("Valid") == ("False", "EditRefused")
    assert f"spec.dataset.uri is configmap://other/train.jsonl, run 1 was started with {ADDRESS}" in message(cluster)
    cluster.edit({"dataset": {"uri": "ref:rows"}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)


async def test_what_a_preset_says_of_other_data_does_not_count(cluster: DatasetCluster) -> None:
    """Design §3: where the data is and how it is read is the Dataset's word, in every run; the rest of the preset counts."""
    preset = {"metadata": {"name": "p"}, "spec": {"dataset": {"split": "test", "format": "messages", "evalRatio": 0.1}}}
    cluster.api.add("finetunepresets", preset, namespace=NAMESPACE)
    await paused(cluster, presetRef={"name": "p"}, dataset={"uri": "ref:rows", "maxSamples": 5})
    cluster.edit_dataset(uri="configmap://other/train.jsonl")
    await resumed(cluster)
    for run in (1, 2):
        dataset = cluster.run_config(run).spec.dataset
        assert (dataset.uri, dataset.split, dataset.format) == (ADDRESS, "train", "text")
        assert (dataset.eval_ratio, dataset.max_samples) == (0.1, 5)


async def test_what_a_dataset_and_a_job_break_together(cluster: DatasetCluster) -> None:
    """A rule that neither breaks alone."""
    create(cluster, method="dpo")
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "Invalid")
    assert "spec.dataset.format: " in message(cluster)


async def test_no_read_where_none_is_named() -> None:
    cluster = DatasetCluster()
    cluster.create({})
    await cluster.until(lambda: cluster.status.run == 1)
    assert not any("datasets" in call.path for call in cluster.api.calls)


async def test_metrics_show_the_address_and_the_feed_knows_who_waits(cluster: DatasetCluster) -> None:
    """Runs on the same data are compared whatever the Dataset is called; a job that has run waits for none."""
    create(cluster)
    assert read_known(cluster.manifest).dataset == "rows"
    await cluster.until(lambda: cluster.status.run == 1)
    known = read_known(cluster.manifest)
    assert known.dataset is None
    assert ADDRESS in known.shown.config

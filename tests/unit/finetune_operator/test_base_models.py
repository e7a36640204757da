"""The catalogue: a job names a BaseModel, and runs with what it stood for when the job first ran."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.constants import API_VERSION, BASE_MODEL_KIND
from finetune_api.contract.run_config import ChosenModel
from finetune_operator.feed import read_known
from tests.support.fake_api import Call, CrashError
from tests.support.operator_cluster import SETTINGS, FakeCluster

COMMIT = "0123456789abcdef0123456789abcdef01234567"
ENTRY: dict[str, Any] = {
    "uri": "s3://models/tiny",
    "type": "LLM",
    "eligible": True,
    "trustRemoteCode": False,
    "defaults": {"adapter": {"targetModules": ["query_key_value"], "allowCustomModules": True}},
}

SETS = ["adapter.targetModules", "adapter.allowCustomModules", "model.uri", "model.type"]


def add(cluster: FakeCluster, name: str = "tiny", **changes: Any) -> None:
    manifest = {"apiVersion": API_VERSION, "kind": BASE_MODEL_KIND, "metadata": {"name": name}, "spec": {**ENTRY, **changes}}
    cluster.api.add("basemodels", manifest, namespace="")


def edit(cluster: FakeCluster, **changes: Any) -> None:
    """Change the entry ``tiny``."""
    cluster.api.change("basemodels", "", "tiny", {"spec": {**ENTRY, **changes}})


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster()
    add(made)
    return made


def create(cluster: FakeCluster, **spec: Any) -> None:
    """A job of the model ``tiny``."""
    cluster.create({"model": {"uri": "ref:tiny"}, **spec})


async def training(cluster: FakeCluster, **spec: Any) -> None:
    create(cluster, **spec)
    await cluster.until(lambda: cluster.phase == "Training", train=5)


async def paused(cluster: FakeCluster, **spec: Any) -> None:
    await training(cluster, **spec)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)


async def resumed(cluster: FakeCluster) -> None:
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training", train=1)


def decided(cluster: FakeCluster, path: str) -> tuple[str, str, str | None]:
    entry = cluster.status.resolved[path]
    return entry.value, entry.source, entry.name


def message(cluster: FakeCluster) -> str:
    return next(c.message for c in cluster.status.conditions if c.type == "Valid")


async def test_a_job_by_name_runs_with_the_address(cluster: FakeCluster) -> None:
    """C-02, C-07: address, type and what the model needs come from the catalogue; the trainer is told of none of it by name."""
    await training(cluster)
    config = cluster.run_config(1)
    assert (config.spec.model.uri, config.spec.model.type) == ("s3://models/tiny", "LLM")
    assert config.spec.adapter.target_modules == ["query_key_value"]
    assert config.base_model == ChosenModel(name="tiny", sets=SETS)
    assert "ref:" not in config.to_json()
    assert decided(cluster, "model.uri") == ("s3://models/tiny", "model", "tiny")
    assert decided(cluster, "model.type") == ("LLM", "model", "tiny")
    assert decided(cluster, "adapter.targetModules") == ('["query_key_value"]', "model", "tiny")
    assert decided(cluster, "adapter.rank") == ("16", "default", None)
    assert cluster.manifest["spec"]["model"] == {"uri": "ref:tiny"}, "nothing is written into spec"


async def test_job_and_preset_come_before_the_model(cluster: FakeCluster) -> None:
    """Design §3: job > preset > BaseModel > table."""
    edit(cluster, type="VLM", defaults={"training": {"maxSeqLength": 1024, "gradientCheckpointing": False}, "adapter": {"rank": 4}})
    preset = {"metadata": {"name": "p"}, "spec": {"training": {"maxSeqLength": 2048}, "adapter": {"rank": 8}}}
    cluster.api.add("clusterfinetunepresets", preset, namespace="")
    create(cluster, presetRef={"name": "p"}, model={"uri": "ref:tiny", "type": "LLM"}, adapter={"rank": 2})
    await cluster.until(lambda: cluster.status.run == 1)
    spec = cluster.run_config(1).spec
    assert (spec.model.uri, spec.model.type, spec.adapter.rank) == ("s3://models/tiny", "LLM", 2)
    assert (spec.training.max_seq_length, spec.training.gradient_checkpointing) == (2048, False)
    assert decided(cluster, "training.maxSeqLength")[1] == "preset"
    assert decided(cluster, "training.gradientCheckpointing") == ("false", "model", "tiny")


async def test_a_missing_model_is_said_and_waited_for() -> None:
    """C-02: Valid=False names field, value and fix; the job goes on when the entry appears."""
    cluster = FakeCluster()
    create(cluster)
    await cluster.settle()
    assert (cluster.phase, cluster.condition("Valid"), cluster.jobs()) == ("Pending", ("False", "BaseModelNotFound"), [])
    assert cluster.condition("Stalled") == ("True", "BaseModelNotFound")
    assert message(cluster) == (
        "spec.model.uri: ref:tiny: there is no BaseModel named tiny; choose one of kubectl get basemodels, or an address"
    )
    add(cluster)
    await cluster.settle(advance=True, rounds=6)
    assert cluster.status.run == 1


async def test_a_model_that_is_not_deployed_takes_no_new_job(cluster: FakeCluster) -> None:
    """C-03, AC-48: the same reason; a job that has run goes on."""
    edit(cluster, deployed=False)
    create(cluster)
    await cluster.settle()
    assert (cluster.condition("Valid"), cluster.jobs()) == (("False", "BaseModelNotEligible"), [])
    assert message(cluster).startswith("spec.model.uri: ref:tiny: this BaseModel is not deployed")
    edit(cluster, deployed=True)
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    edit(cluster, deployed=False)
    cluster.edit({"suspend": False})
    await cluster.until(lambda: cluster.phase == "Training", train=1)


async def test_a_model_that_is_not_eligible_takes_no_new_job(cluster: FakeCluster) -> None:
    """C-03, AC-48: refused with the reason, and what the administrators say of it; it goes on once the model is offered."""
    edit(cluster, eligible=False, description="Licence under review.")
    create(cluster)
    await cluster.settle()
    assert (cluster.phase, cluster.condition("Valid"), cluster.jobs()) == ("Pending", ("False", "BaseModelNotEligible"), [])
    assert message(cluster).startswith("spec.model.uri: ref:tiny: the administrators have marked this BaseModel as not eligible")
    assert message(cluster).endswith("choose one that is, of kubectl get basemodels (Licence under review.)")
    edit(cluster)
    await cluster.settle(advance=True, rounds=6)
    assert cluster.status.run == 1


async def test_a_job_that_has_run_is_not_broken_by_the_catalogue(cluster: FakeCluster) -> None:
    """C-03, pinned runs: another address, other defaults, not eligible any more: all of it is for new jobs."""
    await paused(cluster)
    edit(cluster, uri="s3://models/other", type="VLM", eligible=False, defaults={"adapter": {"rank": 64}})
    await resumed(cluster)
    config = cluster.run_config(2)
    assert (config.spec.model.uri, config.spec.model.type) == ("s3://models/tiny", "LLM")
    assert (config.spec.adapter.rank, config.spec.adapter.target_modules) == (16, ["query_key_value"])
    assert config.base_model == ChosenModel(name="tiny", sets=SETS)
    assert decided(cluster, "model.uri") == ("s3://models/tiny", "model", "tiny")
    assert cluster.condition("Valid") == ("True", "Accepted")


async def test_nor_by_an_entry_that_is_gone(cluster: FakeCluster) -> None:
    await paused(cluster)
    cluster.api.delete(("basemodels", "", "tiny"))
    await resumed(cluster)
    assert cluster.run_config(2).spec.model.uri == "s3://models/tiny"


async def test_what_the_model_set_is_known_from_the_run_alone(cluster: FakeCluster) -> None:
    """The operator dies before it notes the first run in the status: the run's own config says what is kept."""
    died = False

    def die_once(call: Call, moment: str) -> None:
        nonlocal died
        if moment == "before" and not died and call.path.endswith("/status") and cluster.jobs():
            died = True
            raise CrashError

    cluster.api.fault = die_once
    create(cluster)
    await cluster.until(lambda: cluster.crashes == 1)
    cluster.edit({"suspend": True})
    edit(cluster, uri="s3://models/other", defaults={"adapter": {"rank": 64}})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    await resumed(cluster)
    spec = cluster.run_config(2).spec
    assert (spec.model.uri, spec.adapter.rank, spec.adapter.target_modules) == ("s3://models/tiny", 16, ["query_key_value"])


async def test_another_model_makes_it_another_training(cluster: FakeCluster) -> None:
    """Resume class identity: the refusal names the addresses; the old name, or the address itself, is taken."""
    add(cluster, "other", uri="s3://models/other", defaults={})
    await paused(cluster)
    cluster.edit({"model": {"uri": "ref:other"}, "suspend": False})
    await cluster.settle(advance=True, rounds=3)
    assert cluster.condition("Valid") == ("False", "EditRefused")
    assert "spec.model.uri is s3://models/other, run 1 was started with s3://models/tiny" in message(cluster)
    cluster.edit({"model": {"uri": "ref:tiny"}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)


async def test_the_same_address_under_another_name_is_the_same_training(cluster: FakeCluster) -> None:
    add(cluster, "renamed")
    await paused(cluster)
    cluster.edit({"model": {"uri": "ref:renamed"}})
    await resumed(cluster)
    assert cluster.run_config(2).base_model == ChosenModel(name="renamed", sets=SETS)


async def test_the_address_may_be_written_out_where_the_model_set_nothing_else(cluster: FakeCluster) -> None:
    """What the model had set besides is named where it would get lost."""
    await paused(cluster)
    cluster.edit({"model": {"uri": "s3://models/tiny", "type": "LLM"}, "suspend": False})
    await cluster.settle(advance=True, rounds=3)
    assert "spec.adapter.targetModules" in message(cluster)
    cluster.edit({"adapter": {"targetModules": ["query_key_value"], "allowCustomModules": True}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)
    assert cluster.run_config(2).base_model is None


async def test_an_entry_that_is_not_valid_is_named(cluster: FakeCluster) -> None:
    """Stored before a rule was: the sentence says whose fault it is."""
    edit(cluster, uri="pvc://models/x.gguf")
    create(cluster)
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "Invalid")
    assert "spec.model.uri: BaseModel tiny itself is not valid: spec.uri: GGUF files cannot be trained" in message(cluster)


async def test_job_and_model_are_judged_together(cluster: FakeCluster) -> None:
    """A rule that neither breaks alone: weights in 4 bits cannot be trained."""
    edit(cluster, defaults={"quantization": {"mode": "4bit"}})
    create(cluster, adapter={"type": "full"})
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "Invalid")
    assert "spec.quantization.mode: 4bit is for adapters" in message(cluster)


async def test_without_the_read_only_cluster_role_it_says_so() -> None:
    """Namespaced mode: BaseModels belong to the cluster."""
    cluster = FakeCluster(SETTINGS.model_copy(update={"cluster_reads": False}))
    add(cluster)
    create(cluster)
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "BaseModelNotFound")
    assert "this installation may not read BaseModels; its administrator sets rbac.clusterReads" in message(cluster)
    assert not any("basemodels" in call.path for call in cluster.api.calls)


async def test_the_catalogue_allows_the_code_of_its_models(cluster: FakeCluster) -> None:
    """C-05: no chart value is needed; another tokenizer's code still needs its own permission."""
    edit(cluster, uri=f"hf://acme/own@{COMMIT}", trustRemoteCode=True)
    await paused(cluster)
    assert cluster.run_config(1).spec.model.trust_remote_code
    assert decided(cluster, "model.trustRemoteCode") == ("true", "model", "tiny")
    edit(cluster, uri="hf://acme/own@" + "f" * 40, trustRemoteCode=True)
    await resumed(cluster)
    assert cluster.run_config(2).spec.model.uri == f"hf://acme/own@{COMMIT}", "a newer commit is for new jobs"
    other = FakeCluster()
    add(other, uri=f"hf://acme/own@{COMMIT}", trustRemoteCode=True)
    create(other, model={"uri": "ref:tiny", "tokenizer": {"uri": f"hf://other/words@{COMMIT}"}})
    await other.settle()
    assert other.condition("Valid") == ("False", "RemoteCodeNotAllowed")
    assert "spec.model.tokenizer.uri" in message(other)


async def test_the_permission_for_code_can_be_taken_back(cluster: FakeCluster) -> None:
    """As that of the chart value: it holds for the next run of jobs that have run, too."""
    edit(cluster, uri=f"hf://acme/own@{COMMIT}", trustRemoteCode=True)
    await paused(cluster)
    edit(cluster, uri=f"hf://acme/own@{COMMIT}")
    cluster.edit({"suspend": False})
    await cluster.settle(advance=True, rounds=3)
    assert cluster.condition("Valid") == ("False", "RemoteCodeNotAllowed")


async def test_a_job_cannot_take_the_permission_itself(cluster: FakeCluster) -> None:
    """The model does not allow it, the job asks for it: refused, and a branch is no commit."""
    edit(cluster, uri="hf://acme/own@main")
    create(cluster, model={"uri": "ref:tiny", "trustRemoteCode": True})
    await cluster.settle()
    assert "spec.model.uri: must name a commit where model.trustRemoteCode is true" in message(cluster)
    edit(cluster, uri=f"hf://acme/own@{COMMIT}")
    await cluster.settle(advance=True, rounds=3)
    assert cluster.condition("Valid") == ("False", "RemoteCodeNotAllowed")


async def test_metrics_show_the_address(cluster: FakeCluster) -> None:
    """Runs of one model are compared whatever its name in the catalogue."""
    await training(cluster)
    assert "s3://models/tiny" in read_known(cluster.manifest).shown.config


async def test_a_preflight_is_told_the_address(cluster: FakeCluster) -> None:
    """Pods before and after the training as well."""
    create(cluster, resources={"device": "gpu"})
    await cluster.until(lambda: any(plural == "configmaps" for plural, _, _ in cluster.api.history))
    made = [m["data"]["config.json"] for plural, kind, m in cluster.api.history if (plural, kind) == ("configmaps", "ADDED")]
    assert made
    assert all("s3://models/tiny" in text and "ref:" not in text for text in made)


async def test_no_read_where_none_is_named() -> None:
    cluster = FakeCluster()
    cluster.create({})
    await cluster.until(lambda: cluster.status.run == 1)
    assert not any("basemodels" in call.path for call in cluster.api.calls)

"""The catalogue of GPUs: a job names a GpuType, gets its nodes, memory and resource, and pays what it cost when the run was made."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, GPU_TYPE_KIND, LABEL_REGION
from finetune_api.models.status import UsageStatus
from finetune_operator.plan.usage import gpu_seconds
from tests.support.fake_api import Call, CrashError
from tests.support.operator_cluster import SETTINGS, FakeCluster

ENTRY: dict[str, Any] = {
    "memory": "80Gi",
    "computeCapability": "9.0",
    "hourlyRate": "2.50",
    "currency": "USD",
    "resourceName": "nvidia.com/gpu",
    "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
}
GPU: dict[str, Any] = {"device": "gpu", "gpuType": "h100"}


def add(cluster: FakeCluster, name: str = "h100", **changes: Any) -> None:
    manifest = {"apiVersion": API_VERSION, "kind": GPU_TYPE_KIND, "metadata": {"name": name}, "spec": {**ENTRY, **changes}}
    cluster.api.add("gputypes", manifest, namespace="")


def edit(cluster: FakeCluster, **changes: Any) -> None:
    """Change the entry ``h100``."""
    cluster.api.change("gputypes", "", "h100", {"spec": {**ENTRY, **changes}})


@pytest.fixture
def cluster() -> FakeCluster:
    made = FakeCluster()
    add(made)
    return made


def create(cluster: FakeCluster, resources: dict[str, Any] | None = None, **spec: Any) -> None:
    """A job on GPUs of the type ``h100``."""
    cluster.create({"resources": {**GPU, **(resources or {})}, **spec})


async def paused(cluster: FakeCluster) -> None:
    await cluster.until(lambda: cluster.phase == "Training" and cluster.status.usage.productive_seconds >= 20, train=5)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)


async def resumed(cluster: FakeCluster, **resources: Any) -> None:
    cluster.edit({"suspend": False, "resources": {**GPU, **resources}})
    await cluster.until(lambda: cluster.phase == "Training", train=1)


def pod_spec(cluster: FakeCluster, component: str = "trainer") -> dict[str, Any]:
    """Of the last Job made for a component, pods that are gone too."""
    made = [m for plural, kind, m in cluster.api.history if (plural, kind) == ("jobs", "ADDED")]
    of_component = [m for m in made if m["metadata"]["labels"]["finetune.dev/component"] == component]
    spec: dict[str, Any] = of_component[-1]["spec"]["template"]["spec"]
    return spec


def limits(cluster: FakeCluster) -> dict[str, Any]:
    found: dict[str, Any] = pod_spec(cluster)["containers"][0]["resources"]["limits"]
    return found


def message(cluster: FakeCluster) -> str:
    return next(c.message for c in cluster.status.conditions if c.type == "Valid")


def rate_seconds(usage: UsageStatus) -> Decimal:
    """What was charged so far, exactly."""
    return Decimal(usage.rate_seconds or "0")


def exact(seconds: float, rate: str) -> Decimal:
    return Decimal(f"{seconds:.1f}") * Decimal(rate)


async def test_pods_go_where_the_gpus_are(cluster: FakeCluster) -> None:
    """L-02, L-03: selector, tolerations and resource of the type beside the job's own; those that need no GPU run anywhere."""
    edit(cluster, resourceName="nvidia.com/mig-3g.40gb")
    own = {"key": "team", "operator": "Equal", "value": "ml"}
    create(cluster, {"gpusPerReplica": 4, "nodeSelector": {"disk": "fast"}, "tolerations": [own]})
    await cluster.until(lambda: cluster.status.run == 1)
    spec = pod_spec(cluster)
    assert spec["nodeSelector"] == {"disk": "fast", **ENTRY["nodeSelector"]}
    assert spec["tolerations"][:2] == [own, *ENTRY["tolerations"]]
    assert limits(cluster) == {"nvidia.com/mig-3g.40gb": "4"}
    assert "affinity" not in spec
    preflight = pod_spec(cluster, "preflight")
    assert "nodeSelector" not in preflight
    assert ENTRY["tolerations"][0] not in preflight["tolerations"]
    assert cluster.manifest["spec"]["resources"]["nodeSelector"] == {"disk": "fast"}, "nothing is written into spec"


async def test_regions_are_required_beside_the_job_s_own_affinity(cluster: FakeCluster) -> None:
    """L-02: of the job's terms one must hold, so that each gets the regions."""
    edit(cluster, regions=["eu-west-1", "eu-north-1"])
    rack = {"key": "rack", "operator": "Exists"}
    terms: list[dict[str, Any]] = [
        {"matchExpressions": [rack]},
        {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["fast"]}]},
    ]
    required = "requiredDuringSchedulingIgnoredDuringExecution"
    create(cluster, {"affinity": {"nodeAffinity": {required: {"nodeSelectorTerms": terms}}}})
    await cluster.until(lambda: cluster.status.run == 1)
    region = {"key": LABEL_REGION, "operator": "In", "values": ["eu-west-1", "eu-north-1"]}
    found = pod_spec(cluster)["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    assert found == [{"matchExpressions": [*term["matchExpressions"], region]} for term in terms]
    plain = FakeCluster()
    add(plain, regions=["eu-west-1"])
    create(plain)
    await plain.until(lambda: plain.status.run == 1)
    (only,) = pod_spec(plain)["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"]
    assert only == {"matchExpressions": [{**region, "values": ["eu-west-1"]}]}


async def test_preflight_knows_the_memory(cluster: FakeCluster) -> None:
    """N-01: told as resources.gpuMemory, with its source."""
    create(cluster)
    await cluster.until(lambda: cluster.status.run == 1)
    assert cluster.run_config(1).spec.resources.gpu_memory == "80Gi"
    entry = cluster.status.resolved["resources.gpuMemory"]
    assert (entry.value, entry.source, entry.name) == ("80Gi", "gpuType", "h100")


async def test_a_claim_that_supplies_the_gpus_asks_for_no_resource(cluster: FakeCluster) -> None:
    create(cluster, {"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "h100s", "suppliesGpus": True}]})
    await cluster.until(lambda: cluster.status.run == 1)
    assert limits(cluster) == {}
    assert pod_spec(cluster)["nodeSelector"] == ENTRY["nodeSelector"]


async def test_a_preset_chooses_the_gpus(cluster: FakeCluster) -> None:
    """L-02; and a job of it on CPU takes none."""
    cluster.api.add(
        "clusterfinetunepresets", {"metadata": {"name": "p"}, "spec": {"resources": {"device": "gpu", "gpuType": "h100"}}}, namespace=""
    )
    cluster.create({"presetRef": {"name": "p"}, "resources": {"device": None}})
    await cluster.until(lambda: cluster.status.run == 1)
    assert (cluster.run_config(1).gpu_type is not None, cluster.status.resolved["resources.gpuType"].source) == (True, "preset")
    assert pod_spec(cluster)["nodeSelector"] == ENTRY["nodeSelector"]


async def test_an_unknown_type_is_said_with_the_nearest_and_waited_for(cluster: FakeCluster) -> None:
    """L-02: Valid=False names field, value and fix; no pod, not even a preflight's, until the type is there."""
    cluster.create({"resources": {"device": "gpu", "gpuType": "h1000"}})
    await cluster.settle()
    assert (cluster.phase, cluster.condition("Valid"), cluster.jobs(), cluster.jobs("preflight")) == (
        "Pending",
        ("False", "GpuTypeNotFound"),
        [],
        [],
    )
    assert message(cluster) == (
        "spec.resources.gpuType: h1000: there is no GpuType of this name; the nearest are h100; kubectl finetune gpus lists all"
    )
    add(cluster, "h1000")
    await cluster.settle(advance=True, rounds=6)
    assert cluster.status.run == 1


async def test_a_label_that_contradicts_the_type_is_refused(cluster: FakeCluster) -> None:
    """L-02: by name, before anything runs."""
    create(cluster, {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-L4"}})
    await cluster.settle()
    assert (cluster.condition("Valid"), cluster.jobs(), cluster.jobs("preflight")) == (("False", "Invalid"), [], [])
    assert "spec.resources.nodeSelector: nvidia.com/gpu.product is NVIDIA-L4, and nodes of GpuType h100 have NVIDIA-H100" in message(
        cluster
    )


async def test_bfloat16_on_gpus_without_it_is_refused(cluster: FakeCluster) -> None:
    """AC-23."""
    edit(cluster, computeCapability="7.5")
    create(cluster, precision={"bf16": True})
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "Invalid")
    assert message(cluster).startswith("spec.precision.bf16: GpuType h100 has compute capability 7.5, older than Ampere")


async def test_an_entry_that_is_not_valid_is_named(cluster: FakeCluster) -> None:
    edit(cluster, hourlyRate="free")
    create(cluster)
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "Invalid")
    assert "spec.resources.gpuType: GpuType h100 itself is not valid: spec.hourlyRate" in message(cluster)


async def test_without_the_read_only_cluster_role_it_says_so() -> None:
    """Namespaced mode: GpuTypes belong to the cluster."""
    cluster = FakeCluster(SETTINGS.model_copy(update={"cluster_reads": False}))
    add(cluster)
    create(cluster)
    await cluster.settle()
    assert cluster.condition("Valid") == ("False", "GpuTypeNotFound")
    assert "this installation may not read GpuTypes; its administrator sets rbac.clusterReads" in message(cluster)
    assert not any("gputypes" in call.path for call in cluster.api.calls)


async def test_no_read_where_none_is_named() -> None:
    cluster = FakeCluster()
    cluster.create({"resources": {"device": "gpu"}})
    await cluster.until(lambda: cluster.status.run == 1)
    assert not any("gputypes" in call.path for call in cluster.api.calls)
    assert limits(cluster) == {"nvidia.com/gpu": "1"}


async def test_the_cost_is_gpu_hours_times_the_rate(cluster: FakeCluster) -> None:
    """A-09, O-05: of all GPUs of the run, in the currency of the type."""
    create(cluster, {"gpusPerReplica": 4}, replicas=2, training={"gradAccumSteps": 1})
    await paused(cluster)
    usage = cluster.status.usage
    assert gpu_seconds(usage) == usage.active_seconds * 8 > 0
    assert rate_seconds(usage) == exact(gpu_seconds(usage), "2.50")
    assert (usage.currency, usage.hourly_rate) == ("USD", "2.50")
    assert float(usage.cost or 0) == pytest.approx(gpu_seconds(usage) * 2.5 / 3600, abs=1e-4)


async def test_paused_time_is_free_and_the_price_is_that_of_the_first_run(cluster: FakeCluster) -> None:
    """O-11: a later change of the catalogue, its price too, is for new jobs; neither is the entry needed any more."""
    create(cluster)
    await paused(cluster)
    cost = cluster.status.usage.cost
    cluster.clock.advance(100_000)
    await cluster.settle(advance=True, rounds=3)
    assert cluster.status.usage.cost == cost
    edit(cluster, hourlyRate="99", memory="1Gi", nodeSelector={"elsewhere": "yes"}, computeCapability="7.0")
    await resumed(cluster)
    assert pod_spec(cluster)["nodeSelector"] == ENTRY["nodeSelector"]
    assert cluster.run_config(2).spec.resources.gpu_memory == "80Gi"
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=5)
    cluster.api.delete(("gputypes", "", "h100"))
    await resumed(cluster)
    usage = cluster.status.usage
    assert rate_seconds(usage) == exact(gpu_seconds(usage), "2.50")
    assert cluster.condition("Valid") == ("True", "Accepted")


async def test_another_type_may_be_chosen_between_runs(cluster: FakeCluster) -> None:
    """L-06: what was used keeps its price, what is used from then on has the new one."""
    add(cluster, "l4", hourlyRate="0.80", memory="24Gi", nodeSelector={"pool": "l4"})
    create(cluster)
    await paused(cluster)
    first = gpu_seconds(cluster.status.usage)
    await resumed(cluster, gpuType="l4")
    assert cluster.run_config(2).spec.resources.gpu_memory == "24Gi"
    assert pod_spec(cluster)["nodeSelector"] == {"pool": "l4"}
    await cluster.until(lambda: gpu_seconds(cluster.status.usage) >= first + 20, train=5)
    usage = cluster.status.usage
    assert rate_seconds(usage) == exact(first, "2.50") + exact(gpu_seconds(usage) - first, "0.80")
    assert usage.hourly_rate == "0.80"


async def test_costs_of_two_currencies_are_not_added(cluster: FakeCluster) -> None:
    add(cluster, "l4", currency="EUR")
    create(cluster)
    await paused(cluster)
    cluster.edit({"suspend": False, "resources": {**GPU, "gpuType": "l4"}})
    await cluster.settle(advance=True, rounds=3)
    assert cluster.condition("Valid") == ("False", "EditRefused")
    assert "spec.resources.gpuType is l4, priced in EUR, and status.usage.cost is in USD" in message(cluster)
    await resumed(cluster)


async def test_a_type_without_a_price_costs_nothing_that_is_known(cluster: FakeCluster) -> None:
    edit(cluster, hourlyRate=None)
    create(cluster)
    await paused(cluster)
    assert cluster.status.usage.cost is None
    assert "cost" not in cluster.manifest["status"]["usage"]


async def test_the_price_is_known_from_the_run_alone(cluster: FakeCluster) -> None:
    """The operator dies before it notes the first run in the status: the run's own config says what it costs."""
    died = False

    def die_once(call: Call, moment: str) -> None:
        nonlocal died
        if moment == "before" and not died and call.path.endswith("/status") and cluster.jobs():
            died = True
            raise CrashError

    cluster.api.fault = die_once
    create(cluster)
    await cluster.until(lambda: cluster.crashes == 1)
    edit(cluster, hourlyRate="99")
    await paused(cluster)
    usage = cluster.status.usage
    assert rate_seconds(usage) == exact(gpu_seconds(usage), "2.50")


async def test_the_time_of_an_administrator_s_program_costs_as_well(cluster: FakeCluster) -> None:
    """A TrainingMethod's program has no clocks that we know of: its pods' time counts."""
    cluster.api.add("trainingmethods", {"metadata": {"name": "m"}, "spec": {"image": "own"}}, namespace="")
    create(cluster, methodRef={"name": "m"})
    await cluster.until(lambda: cluster.phase == "Training")
    assert pod_spec(cluster)["nodeSelector"] == ENTRY["nodeSelector"]
    cluster.clock.advance(3600)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused")
    cost = cluster.status.usage.cost
    assert cost is not None
    assert 2.5 <= float(cost) < 2.7

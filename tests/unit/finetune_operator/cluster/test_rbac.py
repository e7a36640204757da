"""The table of rights is what the operator uses, no more and no less."""

from __future__ import annotations

from finetune_operator.cluster.rbac import CLUSTER, JOB_NAMESPACES, OWN_NAMESPACE, Right
from tests.support.dataset_cluster import DatasetCluster
from tests.support.fake_api import Call
from tests.support.operator_cluster import NAMESPACE, FakeCluster

VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "PUT": "update", "DELETE": "delete"}
WATCHED = {
    ("finetunejobs", "list"),
    ("finetunejobs", "watch"),
    ("datasets", "list"),
    ("datasets", "watch"),
    ("budgets", "list"),
    ("budgets", "watch"),
    ("jobs", "list"),
    ("jobs", "watch"),
    ("pods", "watch"),
}
"""By kopf's feeds."""
ELSEWHERE = {
    ("finetunejobs/finalizers", "update"),
    ("services", "get"),
    ("pods", "get"),
    ("configmaps", "patch"),
    ("budgets/status", "patch"),
    ("workloads", "list"),
}
"""Owner references; a creation that broke off (test_crash); the progress endpoint; the publisher of the CA; Budgets (test_budgets); queues
(test_queueing)."""


def used(call: Call) -> tuple[str, str]:
    """(resource, verb) of a request."""
    parts = call.path.strip("/").split("/")
    parts = parts[2:] if parts[0] == "api" else parts[3:]
    parts = parts[2:] if parts and parts[0] == "namespaces" else parts
    resource = parts[0] if len(parts) < 3 else f"{parts[0]}/{parts[2]}"
    verb = VERBS[call.method]
    return resource, "list" if verb == "get" and len(parts) == 1 else verb


def granted(rights: tuple[Right, ...]) -> set[tuple[str, str]]:
    return {(right.resource, verb) for right in rights for verb in right.verbs}


async def test_a_job_s_life_uses_exactly_the_rights_of_the_table() -> None:
    """D: least privilege; no Secret but one, no right to write spec beyond the finalizer."""
    cluster = FakeCluster()
    cluster.create({"resources": {"device": "gpu"}, "replicas": 2, "output": {"retain": "Delete"}, "presetRef": {"name": "p"}})
    cluster.api.add("clusterfinetunepresets", {"metadata": {"name": "p"}, "spec": {}})
    await cluster.until(lambda: cluster.phase == "Training", train=5)
    cluster.edit({"suspend": True})
    await cluster.until(lambda: cluster.phase == "Paused", train=1)
    cluster.api.delete(("finetunejobs", NAMESPACE, "demo"))
    await cluster.settle_until_gone()
    of_method = FakeCluster()
    of_method.create({"methodRef": {"name": "m"}, "model": {"uri": "ref:b"}})
    of_method.api.add("basemodels", {"metadata": {"name": "b"}, "spec": {"uri": "s3://models/tiny", "type": "LLM"}}, namespace="")
    of_method.api.add("trainingmethods", {"metadata": {"name": "m"}, "spec": {"image": "own"}}, namespace="")
    await of_method.until(lambda: of_method.phase == "Training")
    of_gpus = FakeCluster()
    of_gpus.create({"resources": {"device": "gpu", "gpuType": "nobody-made-it"}})
    await of_gpus.settle()
    of_dataset = DatasetCluster()
    of_dataset.add_dataset()
    of_dataset.create({"dataset": {"uri": "ref:rows"}})
    await of_dataset.rest()
    await of_dataset.until(lambda: of_dataset.phase == "Training", train=5)
    calls = {used(call) for call in (*cluster.api.calls, *of_method.api.calls, *of_gpus.api.calls, *of_dataset.api.calls)}
    cluster_wide = {("clusterfinetunepresets", "get"), ("trainingmethods", "get"), ("basemodels", "get")}
    cluster_wide |= {("gputypes", "get"), ("gputypes", "list")}
    assert calls - cluster_wide == granted(JOB_NAMESPACES) - WATCHED - ELSEWHERE
    assert cluster_wide == granted(CLUSTER) - {("tokenreviews", "create")}


def test_the_only_secret_is_the_operator_s_own_by_name() -> None:
    secrets = [right for right in (*JOB_NAMESPACES, *CLUSTER, *OWN_NAMESPACE) if right.resource == "secrets"]
    assert [(right.names, right in OWN_NAMESPACE) for right in secrets] == [(("finetune-operator-tls",), True)]


def test_every_right_says_why() -> None:
    assert all(right.why for right in (*JOB_NAMESPACES, *CLUSTER, *OWN_NAMESPACE))

"""The operator's rights on a real cluster: every request it makes is allowed, and every right in its table is used (least privilege)."""

from __future__ import annotations

import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from finetune_api.constants import API_VERSION, DATASET_KIND, TLS_SECRET
from finetune_operator.cluster.rbac import CLUSTER, JOB_NAMESPACES, OWN_NAMESPACE
from tests.e2e.conftest import JobFactory
from tests.support.platform import SYSTEM_NAMESPACE, Kubectl, Platform, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.alone]
METHODS = {"get": "GET", "list": "GET", "create": "POST", "patch": "PATCH", "update": "PUT", "delete": "DELETE"}
ONCE = {("leases", "POST")}
"""The first operator of a cluster makes the Lease."""
NOT_A_REQUEST = {("finetunejobs", "PUT")}
"""finetunejobs/finalizers: a right the API server looks for when an owner reference blocks deletion."""


def requests(platform: Platform) -> dict[tuple[str, str], set[int]]:
    """Status codes of the requests of the operator that leads, by resource and method."""
    kubectl = platform.kubectl.within(SYSTEM_NAMESPACE)
    with (
        kubectl.port_forward("deployment/finetune-operator", 8080) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page,
    ):
        text = page.read().decode()
    found: dict[tuple[str, str], set[int]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == "finetune_operator_api_requests_total":
                key = sample.labels["resource"], sample.labels["verb"]
                found.setdefault(key, set()).add(int(sample.labels["code"]))
    return found


def granted() -> set[tuple[str, str]]:
    """Resource and method of every right; watches are kopf's, whose requests are not counted."""
    rights = [(right.resource.partition("/")[0], verb) for right in (*JOB_NAMESPACES, *CLUSTER, *OWN_NAMESPACE) for verb in right.verbs]
    return {(resource, METHODS[verb]) for resource, verb in rights if verb in METHODS} - NOT_A_REQUEST


def test_every_request_is_allowed_and_every_right_is_used(platform: Platform, namespace: Kubectl, run_job: JobFactory) -> None:
    """A life with a preset, pauses, a progress report, a queue nobody serves, things nobody made and a clean-up needs all of the table.

    Likewise another CA, which is written into the Secret and brought to the namespace of the job.
    """
    training = {"epochs": 20, "maxSteps": 300, "gradAccumSteps": 2}  # long enough: the preset has maxSteps as a cap
    spec = {"replicas": 2, "training": training, "output": {"retain": "Delete"}}
    job = run_job("rights", {"presetRef": {"name": "quick-test"}, **spec})
    for _ in range(2):  # the second pause clears away what belongs to the first run
        job.wait_phase("Starting", "Resuming", "Training")
        job.scale(0)
        job.wait_phase("Paused")
        job.scale(2)
    queued = run_job("queued", {"resources": {"queue": "nobody-serves-it"}})
    eventually(lambda: queued.condition("Admitted").get("reason") == "AwaitingQueue", within=60, what="a run that waits for its queue")
    missing = run_job("of-method", {"methodRef": {"name": "nobody-made-it"}})
    eventually(lambda: missing.status.get("reason") == "MethodUnavailable", within=60, what="a job whose method is looked for")
    unknown = run_job("of-model", {"model": {"uri": "ref:nobody-made-it"}})
    eventually(lambda: unknown.status.get("reason") == "BaseModelNotFound", within=60, what="a job whose model is looked for")
    elsewhere = run_job("of-gpus", {"resources": {"device": "gpu", "gpuType": "nobody-made-it"}})
    eventually(lambda: elsewhere.status.get("reason") == "GpuTypeNotFound", within=60, what="a job whose GPUs are looked for")
    rows = {"apiVersion": API_VERSION, "kind": DATASET_KIND, "metadata": {"name": "rows"}, "spec": {"uri": "configmap://sft/train.jsonl"}}
    namespace.apply(rows)
    namespace("wait", "--for=condition=Ready", "dataset.finetune.dev/rows", "--timeout=180s")
    job.wait_phase("Succeeded")
    platform.kubectl.within(SYSTEM_NAMESPACE)("patch", "secret", TLS_SECRET, "--type=merge", "-p", '{"data":{"ca.key":null}}')
    eventually(lambda: ("configmaps", "PATCH") in requests(platform), within=120, what="the new CA is published", every=5)
    namespace("delete", "finetunejob", job.name, "--wait=true", "--timeout=120s")
    made = requests(platform)
    assert set(made) - {("apis", "GET"), ("openid", "GET"), ("version", "GET")} - ONCE == granted() - ONCE
    assert {key: codes for key, codes in made.items() if 403 in codes and key[1] != "POST"} == {}
    assert {key: codes for key, codes in made.items() if key[1] == "POST" and 201 not in codes} == {}

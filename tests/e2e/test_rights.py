"""The operator's rights on a real cluster: every request it makes is allowed, and every right in its table is used (least privilege)."""

from __future__ import annotations

import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from finetune_api.constants import API_VERSION, DATASET_KIND, TLS_SECRET
from finetune_operator.cluster.rbac import CLUSTER, JOB_NAMESPACES, OWN_NAMESPACE
from tests.e2e.conftest import JobFactory
from tests.support.platform import ROOT, SYSTEM_NAMESPACE, Kubectl, Platform, eventually

pytestmark = [pytest.mark.e2e, pytest.mark.alone]
Request = tuple[str, str]
"""Resource with its subresource, and verb, as a rule of RBAC names them."""
ONCE = {("leases", "create")}
"""The first operator of a cluster makes the Lease."""
NOT_A_REQUEST = {("finetunejobs/finalizers", "update")}
"""A right the API server looks for when an owner reference blocks deletion."""
EVERYBODYS = {("apis", "get"), ("openid", "get"), ("version", "get")}
"""Discovery, and the API server's public keys: roles that every service account has."""


def told(platform: Platform) -> Iterator[Sample]:
    """What the operator that leads tells of itself."""
    kubectl = platform.kubectl.within(SYSTEM_NAMESPACE)
    with (
        kubectl.port_forward("deployment/finetune-operator", 8080) as port,
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page,
    ):
        text = page.read().decode()
    return (sample for family in text_string_to_metric_families(text) for sample in family.samples)


def requests(platform: Platform) -> dict[Request, Counter[int]]:
    """How often each request had which status code; of what is watched, whose requests are kopf's, the events are counted."""
    found: dict[Request, Counter[int]] = defaultdict(Counter)
    for sample in told(platform):
        labels = sample.labels
        if sample.name == "finetune_operator_api_requests_total":
            found[labels["resource"], labels["verb"]][int(labels["code"])] += int(sample.value)
        elif sample.name == "finetune_operator_watch_events_total" and labels["type"] in ("ADDED", "MODIFIED", "DELETED"):
            for verb in ("list", "watch"):  # a watch begins where a list ended
                found[labels["resource"], verb][200] += int(sample.value)
    return found


def refused(before: Mapping[Request, Counter[int]], now: Mapping[Request, Counter[int]]) -> set[Request]:
    """What was answered 403 meanwhile."""
    return {request for request, codes in now.items() if codes[403] > before.get(request, Counter())[403]}


def granted() -> set[Request]:
    """Every right of the table that is for requests."""
    return {(right.resource, verb) for right in (*JOB_NAMESPACES, *CLUSTER, *OWN_NAMESPACE) for verb in right.verbs} - NOT_A_REQUEST


def nothing_goes_away(platform: Platform) -> bool:
    """Whether no namespace is being deleted: in such a one creating is forbidden to everybody."""
    return all(namespace["status"]["phase"] == "Active" for namespace in platform.kubectl.items("namespaces"))


def test_every_request_is_allowed_and_every_right_is_used(platform: Platform, namespace: Kubectl, run_job: JobFactory) -> None:
    """A life with a preset, pauses, a progress report, a queue nobody serves, things nobody made and a clean-up needs all of the table.

    Likewise another CA, which is written into the Secret and brought to the namespace of the job, and a Service of a run's name that is
    there before the run. Subresources and watches are rights of their own.
    """
    eventually(lambda: nothing_goes_away(platform) or None, within=180, what="earlier namespaces are gone", every=2)
    before = requests(platform)
    taken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken-r1"}, "spec": {"clusterIP": "None"}}
    namespace.apply(taken)
    run_job("taken", {"replicas": 2})
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
    namespace("apply", "-f", str(ROOT / "examples/budget.yaml"))
    namespace("wait", "--for=condition=Ready", "budget.finetune.dev/default", "--timeout=60s")
    job.wait_phase("Succeeded")
    platform.kubectl.within(SYSTEM_NAMESPACE)("patch", "secret", TLS_SECRET, "--type=merge", "-p", '{"data":{"ca.key":null}}')
    eventually(lambda: ("configmaps", "patch") in requests(platform), within=120, what="the new CA is published", every=5)
    namespace("delete", "finetunejob", job.name, "--wait=true", "--timeout=120s")
    made = requests(platform)
    assert set(made) - EVERYBODYS - ONCE == granted() - ONCE
    assert refused(before, made) == set()

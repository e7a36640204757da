"""Budgets on a real API server: what was given is never taken back, and kubectl shows what is left."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, BUDGET_KIND, GPU_TYPE_KIND, KIND, METHOD_KIND
from tests.support.apiserver import ApiServer
from tests.support.crds import explain, get_table
from tests.support.operator_process import Operator, holder
from tests.support.platform import Kubectl, eventually

pytestmark = pytest.mark.integration
FIRST = {"amount": "250.00", "at": "2026-11-01T09:00:00Z", "note": "Q4"}
SECOND = {"amount": "0.6667", "at": "2026-11-02T09:00:00Z"}


def document(name: str = "default", **spec: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": BUDGET_KIND, "metadata": {"name": name}, "spec": {"credits": [FIRST], **spec}}


@pytest.fixture
def budget(api: ApiServer) -> Iterator[dict[str, Any]]:
    """The Budget of the test's namespace."""
    answer = api.request("POST", api.path(BUDGET_KIND), document(), fieldValidation="Strict")
    assert answer.code == 201, answer.message
    yield answer.body
    api.request("DELETE", api.path(BUDGET_KIND, "default"))


def test_credits_are_only_added(api: ApiServer, budget: dict[str, Any]) -> None:
    """O-10: another entry is taken; one that is changed, taken away or given at the same time twice is not, nor another currency."""
    assert budget["spec"]["currency"] == "USD"
    path = api.path(BUDGET_KIND, "default")
    added = api.request("PATCH", path, {"spec": {"credits": [SECOND, FIRST]}})
    assert added.code == 200, added.message
    changed = api.request("PATCH", path, {"spec": {"credits": [{**FIRST, "amount": "9999.00"}, SECOND]}})
    fewer = api.request("PATCH", path, {"spec": {"credits": [FIRST]}})
    twice = api.request("PATCH", path, {"spec": {"credits": [FIRST, SECOND, {**SECOND, "amount": "1.00"}]}})
    other = api.request("PATCH", path, {"spec": {"currency": "EUR"}})
    assert [answer.code for answer in (changed, fewer, twice, other)] == [422] * 4
    assert "stays as it is; add another" in changed.message
    assert "only added" in fewer.message
    assert "stays as it is" in other.message


def test_a_namespace_has_one(api: ApiServer) -> None:
    """AA-03: two could not say which pays."""
    refused = api.request("POST", api.path(BUDGET_KIND), document("team"), dryRun="All")
    assert (refused.code, "must be default" in refused.message) == (422, True)


def test_kubectl_shows_what_is_left(kubeconfig: Path, api: ApiServer, budget: dict[str, Any]) -> None:
    """O-09: balance, reserved and settled as columns; a new one is not yet looked at."""
    assert [c["status"] for c in budget["status"]["conditions"]] == ["Unknown", "True"]
    status = {"balance": "249.0000", "reserved": "2.0000", "settled": "1.0000", "jobs": 1}
    written = api.request("PATCH", api.path(BUDGET_KIND, "default", "status"), {"status": status})
    assert written.code == 200, written.message
    header, row = get_table(kubeconfig, "ftb", "default", "--namespace", api.namespace).splitlines()
    assert header.split() == ["NAME", "BALANCE", "RESERVED", "SETTLED", "CURRENCY", "JOBS", "AGE"]
    assert row.split()[1:6] == ["249.0000", "2.0000", "1.0000", "USD", "1"]
    assert "only ever added" in " ".join(explain(kubeconfig, "budgets.spec.credits").split())


@pytest.fixture
def catalogue(unattended: Kubectl, tmp_path: Path) -> Iterator[str]:
    """Name of a GpuType for 4.00 an hour and of a TrainingMethod (no preflight); an operator looks after the namespace."""
    name = f"paid-{uuid.uuid4().hex[:8]}"
    gpu_type = {"memory": "80Gi", "hourlyRate": "4.00", "nodeSelector": {"finetune.dev/test": "nowhere"}}
    for kind, spec in ((GPU_TYPE_KIND, gpu_type), (METHOD_KIND, {"image": "none.invalid/own"})):
        unattended.apply({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})
    with ExitStack() as stack:
        Operator(unattended, "one", tmp_path / "operator.log", stack)
        eventually(lambda: holder(unattended) or None, within=60, what="a leader")
        yield name
    unattended("delete", "gputype,trainingmethod", name)


def finetune(kubectl: Kubectl, *words: str) -> str:
    command = [sys.executable, "-m", "finetune_cli", *words, "-n", kubectl.namespace]
    done = subprocess.run(command, capture_output=True, text=True, env=kubectl.environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_job_is_approved_paid_for_and_settled(unattended: Kubectl, catalogue: str) -> None:
    """O-07, O-08, O-10, AC-51: no pod before approval and credit; what a job that is deleted had reserved is there again."""

    def phase() -> str:
        return str(((unattended.get("finetunejob", "paid") or {}).get("status") or {}).get("phase", ""))

    def reserved() -> str:
        return str((unattended.get("budget", "default") or {})["status"].get("reserved", ""))

    unattended.apply(document(credits=[{**FIRST, "amount": "1.00"}], approvalAbove="1.50"))
    spec = {
        "model": {"uri": "s3://finetune/none"}, "dataset": {"uri": "s3://finetune/none", "region": "x", "secretRef": {"name": "none"}},
        "methodRef": {"name": catalogue}, "resources": {"device": "gpu", "gpuType": catalogue}, "limits": {"maxGpuHours": 0.5},
    }  # fmt: skip
    unattended.apply({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "paid"}, "spec": spec})
    eventually(lambda: phase() == "AwaitingApproval" or None, within=60, what="AwaitingApproval")
    finetune(unattended, "approve", "paid", "--no-wait")
    eventually(lambda: phase() == "AwaitingBalance" or None, within=60, what="AwaitingBalance")
    assert unattended.items("jobs") == []
    finetune(unattended, "topup", "1.00", "--note", "more")
    eventually(lambda: [item["metadata"]["name"] for item in unattended.items("jobs")] == ["paid-r1"] or None, within=60, what="the run")
    assert reserved() == "2.0000"
    assert "paid" in finetune(unattended, "budget")
    unattended("delete", "finetunejob", "paid")
    eventually(lambda: reserved() == "0.0000" or None, within=60, what="what was reserved is free again")


@pytest.mark.usefixtures("catalogue")
def test_a_job_on_cpu_waits_for_the_quota(unattended: Kubectl) -> None:
    """O-14, O-15: 100 steps saved every 10 are 10 checkpoints; no pod while the quota has fewer; a top-up starts it."""

    def status() -> dict[str, Any]:
        return dict((unattended.get("finetunejob", "limited") or {}).get("status") or {})

    unattended.apply(document(credits=[], checkpointQuota=4))
    spec = {
        "model": {"uri": "s3://finetune/none"}, "dataset": {"uri": "configmap://rows/train.jsonl"}, "resources": {"device": "cpu"},
        "training": {"maxSteps": 100}, "checkpoint": {"strategy": "steps", "steps": 10},
    }  # fmt: skip
    unattended.apply({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "limited"}, "spec": spec})
    eventually(lambda: status().get("reason") == "QuotaTooLow" or None, within=60, what="QuotaTooLow")
    assert status()["phase"] == "AwaitingBalance"
    assert unattended.items("jobs") == []
    finetune(unattended, "topup", "--checkpoints", "6")
    eventually(lambda: [item["metadata"]["name"] for item in unattended.items("jobs")] == ["limited-r1"] or None, within=60, what="the run")
    assert (unattended.get("budget", "default") or {})["status"]["checkpointsReserved"] == 10
    assert "checkpoints 0 of 10 written; reserved 10; free for new jobs 0" in finetune(unattended, "budget")

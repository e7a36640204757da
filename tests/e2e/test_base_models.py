"""The catalogue on a real cluster: a job by the name of a model trains, one of a model that is not offered waits with a sentence."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, BASE_MODEL_KIND
from tests.e2e.conftest import JobFactory
from tests.support.jobs import make_job
from tests.support.platform import Kubectl, Platform, eventually

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def entry(platform: Platform) -> Iterator[dict[str, Any]]:
    """The tests' tiny model in the catalogue, under a name of this run's own."""
    spec = {"uri": make_job("any")["spec"]["model"]["uri"], "type": "LLM", "parameters": 100_000, "defaults": {"adapter": {"rank": 4}}}
    name = f"e2e-tiny-{uuid.uuid4().hex[:8]}"
    document = {"apiVersion": API_VERSION, "kind": BASE_MODEL_KIND, "metadata": {"name": name}, "spec": spec}
    platform.kubectl.apply(document)
    yield document
    platform.kubectl("delete", "basemodels", name, "--ignore-not-found")


def offer(platform: Platform, entry: dict[str, Any], **changes: Any) -> None:
    """Change the entry."""
    platform.kubectl.apply({**entry, "spec": {**entry["spec"], **changes}})


def test_a_job_by_name_trains_and_keeps_its_model(platform: Platform, run_job: JobFactory, entry: dict[str, Any]) -> None:
    """C-02, C-03, C-07: resolved with its source; an entry that is edited and withdrawn meanwhile is for new jobs."""
    name, address = entry["metadata"]["name"], entry["spec"]["uri"]
    reference = {"uri": f"ref:{name}"}
    job = run_job("by-name", {"model": reference, "adapter": {"rank": None}, "training": {"maxSteps": 500}})
    job.wait_step(3)
    assert job.status["resolved"]["model.uri"] == {"value": address, "source": "model", "name": name}
    assert job.status["resolved"]["adapter.rank"] == {"value": "4", "source": "model", "name": name}
    offer(platform, entry, uri="s3://finetune/models/elsewhere", eligible=False, description="Withdrawn.")
    job.scale(0)
    job.wait_phase("Paused")
    job.scale(1)
    status = job.wait_phase("Succeeded")
    assert status["run"] == 2
    assert status["resolved"]["model.uri"]["value"] == address
    assert job.object["spec"]["model"] == reference


def test_a_model_that_is_not_offered_takes_no_new_job(platform: Platform, run_job: JobFactory, entry: dict[str, Any]) -> None:
    """C-03, AC-48: no pod, a reason and a sentence; the job goes on by itself once the model is offered."""
    name = entry["metadata"]["name"]
    offer(platform, entry, eligible=False, description="Licence under review.")
    job = run_job("not-eligible", {"model": {"uri": f"ref:{name}"}, "training": {"maxSteps": 5}})
    eventually(lambda: job.condition("Valid").get("reason") == "BaseModelNotEligible", within=60, what="the condition Valid")
    assert f"ref:{name}: the administrators have marked" in job.condition("Valid")["message"]
    assert "Licence under review." in job.condition("Valid")["message"]
    assert job.pods() == []
    offer(platform, entry)
    job.wait_phase("Succeeded")


def test_a_model_that_does_not_exist(run_job: JobFactory) -> None:
    """C-02: the field, the value and the fix."""
    job = run_job("no-model-of-name", {"model": {"uri": "ref:nowhere"}})
    eventually(lambda: job.condition("Valid").get("reason") == "BaseModelNotFound", within=60, what="the condition Valid")
    assert "spec.model.uri: ref:nowhere: there is no BaseModel named nowhere" in job.condition("Valid")["message"]


def test_the_catalogue_shows_itself(platform: Platform, namespace: Kubectl, entry: dict[str, Any]) -> None:
    """C-04, AC-33: columns of kubectl get; the shipped eight, two of them VLM, and the one stored in 4 bits (C-09)."""
    offer(platform, entry)
    header, row = namespace("get", "ftbm", entry["metadata"]["name"]).splitlines()
    assert header.split() == ["NAME", "URI", "TYPE", "PARAMETERS", "ELIGIBLE", "DEPLOYED", "AGE"]
    assert row.split()[:4] == [entry["metadata"]["name"], entry["spec"]["uri"], "LLM", "100000"]
    shipped = {item["metadata"]["name"]: item["spec"]["type"] for item in namespace.items("basemodels")}
    assert [name for name, kind in sorted(shipped.items()) if kind == "VLM"] == ["llama-3.2-11b-vision-instruct", "qwen2.5-vl-7b-instruct"]
    assert "llama-3.1-8b-instruct-bnb-4bit" in shipped

"""Training in stages and from afar, through real FineTuneJobs: an adapter that a second job goes on from, and rows read from a hub."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.hub_pod import CODE_DIR, PORT, ROWS_DIR, hub_pod
from tests.support.platform import Job, Kubectl, Platform, eventually

pytestmark = pytest.mark.e2e
SERVE: Final = f"""
import pathlib, sys
sys.path.insert(0, "{CODE_DIR}")
import hub
from aiohttp import web
server = hub.HubServer()
server.add("datasets", "acme/rows", {{"train.jsonl": pathlib.Path("{ROWS_DIR}/train.jsonl").read_bytes()}})
web.run_app(server.application(), host="0.0.0.0", port={PORT})
"""


@pytest.fixture
def hub_secret(platform: Platform, namespace: Kubectl) -> Iterator[str]:
    """A hub in the cluster with a public dataset; returns the Secret that names its address."""
    with hub_pod(namespace, "rows-hub", platform.images["trainer"], ["python3", "-c", SERVE], token="unused") as secret:
        yield secret


def test_a_second_stage(run_job: JobFactory) -> None:
    """R-12: the second job takes shape and weights of the first one's final adapter, and its lineage names it."""
    first = run_job("stage-one", {"training": {"maxSteps": 4}, "adapter": {"rank": 3}})
    uri = f"{first.wait_phase('Succeeded')['outputUri']}/final"
    second = run_job("stage-two", {"training": {"maxSteps": 4}, "adapter": {"rank": None, "targetModules": None, "attach": {"uri": uri}}})
    second.wait_phase("Succeeded")
    assert json.loads(second.read("final/adapter_config.json"))["r"] == 3
    lineage = json.loads(second.read("lineage.json"))
    assert lineage["spec"]["adapter"]["attach"]["uri"] == uri
    assert lineage["pinned"]["companions"]["adapter.attach.uri"]
    assert "adapter.attach.uri" in second.condition("AttachLoraNotRecommended")["message"]


def test_a_checkpoint_is_evaluated_again(run_job: JobFactory, namespace: Kubectl) -> None:
    """S-09: as a job of its own, which trains nothing and finds the loss that the training found."""
    spec = {
        "dataset": {"evalRatio": 0.1},
        "training": {"maxSteps": 200},
        "evaluation": {"strategy": "steps", "steps": 100, "batchSize": 8},
        "checkpoint": {"steps": 100},
    }
    job = run_job("judged", spec)
    found = {entry["step"]: entry for entry in job.wait_phase("Succeeded")["checkpoints"]["recent"]}
    command = [sys.executable, "-m", "finetune_cli", "evaluate", job.name, "--checkpoint", "100", "-n", namespace.namespace]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=namespace.environment | {"COLUMNS": "200"}, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = [line.split() for line in done.stdout.splitlines() if line.startswith("checkpoint-")]
    checkpoint, again, before, name = row
    assert (checkpoint, again) == ("checkpoint-100", before)
    evaluation = namespace.get("finetunejob", name)
    assert evaluation is not None
    assert evaluation["status"]["artifacts"]["evalLoss"] == found[100]["evalLoss"]
    assert Job(job.platform, namespace, name).rows() == {}
    namespace("delete", "finetunejob", name, "--wait=true", "--timeout=120s")


def test_rows_are_read_from_a_hub(run_job: JobFactory, hub_secret: str) -> None:
    """E-14: rows are read while they are trained; a paused job goes on with those it would have trained."""
    spec = {
        "dataset": {"uri": "hf://acme/rows", "streaming": True, "maxSamples": 0, "numWorkers": 2},
        "training": {"maxSteps": 500},  # the answer to a progress post takes up to 5 s
        "secrets": {"huggingface": {"secretRef": {"name": hub_secret}}},
    }
    job = run_job("streamed", spec)
    job.wait_step(3)
    job.scale(0)
    job.wait_phase("Paused")
    job.scale(1)
    assert "trainRows" not in job.wait_phase("Succeeded")["facts"]
    assert sorted(job.rows()) == list(range(1, 501))


def test_code_of_a_model_needs_the_administrator(run_job: JobFactory) -> None:
    """The chart allows none by default: a sentence, and no pod."""
    job = run_job("own-code", {"model": {"trustRemoteCode": True}})
    refused = eventually(lambda: job.condition("Valid") or None, within=60, what="the spec is judged")
    assert (refused["status"], refused["reason"]) == ("False", "RemoteCodeNotAllowed")
    assert "trainer.trustRemoteCode.allowed" in refused["message"]
    assert job.pods() == []

"""Jobs of a TrainingMethod on a real cluster: an image and a program that are not ours, from report and pause to result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, METHOD_KIND
from tests.e2e.conftest import JobFactory
from tests.support import own_program
from tests.support.platform import Platform, eventually

pytestmark = pytest.mark.e2e
PROGRAM = Path(own_program.__file__).read_text(encoding="utf-8")
GROUP_PROGRAM = """
import os, torch
from torch import distributed
distributed.init_process_group("gloo")
total = torch.ones(1)
distributed.all_reduce(total)
assert int(total) == int(os.environ["WORLD_SIZE"]) == 2, total
distributed.barrier()
distributed.destroy_process_group()
"""
STEPS = 30


@pytest.fixture(scope="module")
def methods(platform: Platform) -> Iterator[None]:
    """Two methods whose image is one the registry has: the trainer's, without our program."""
    image = platform.images["trainer"]
    resources = {"device": "cpu", "cpu": "100m", "memory": "1Gi"}
    counting: dict[str, Any] = {
        "image": image,
        "command": ["python", "-c"],
        "args": [PROGRAM],
        "resumable": True,
        "resources": resources,
        "parameters": [{"name": "SECONDS_PER_STEP", "type": "number", "minimum": 0, "maximum": 5, "default": "0.5"}],
    }
    grouped = {"image": image, "command": ["python", "-m", "torch.distributed.run", "--no-python"], "resources": resources}
    grouped["args"] = ["python", "-c", GROUP_PROGRAM]
    for name, spec in (("e2e-counting", counting), ("e2e-grouped", grouped)):
        platform.kubectl.apply({"apiVersion": API_VERSION, "kind": METHOD_KIND, "metadata": {"name": name}, "spec": spec})
    yield
    platform.kubectl("delete", "trainingmethods", "e2e-counting", "e2e-grouped", "--ignore-not-found")


def test_an_own_program_reports_pauses_goes_on_and_ends(methods: None, run_job: JobFactory) -> None:
    """B-01, B-02: parameters by variable and by file, the stock protocol, SIGTERM and grace, its own checkpoint, its own result."""
    ref = {"name": "e2e-counting", "parameters": {"SECONDS_PER_STEP": "0.4"}}
    job = run_job("own", {"methodRef": ref, "training": {"maxSteps": STEPS}, "resources": {"device": None, "cpu": None, "memory": None}})
    job.wait_step(3)
    progress = job.status["progress"]
    assert (progress["totalSteps"], progress["metrics"]["own_number"]) == (STEPS, progress["step"] * 2)
    assert job.phase == "Training"
    job.scale(0)
    job.wait_phase("Paused")
    assert "goes on from the checkpoint it keeps itself" in job.condition("Ready")["message"]
    saved = int(json.loads(job.read("checkpoints/state.json"))["step"])
    assert 3 <= saved < STEPS
    job.scale(1)
    status = job.wait_phase("Succeeded")
    result = json.loads(job.read("final/result.json"))
    assert (result["first"], result["last"]) == (saved, STEPS)
    assert result["rows"] > 0
    assert result["job"]["parameters"] == {"SECONDS_PER_STEP": 0.4}
    assert (result["job"]["run"], result["environment"]["FINETUNE_RUN"]) == (2, "2")
    assert result["environment"]["LEARNING_RATE"] == "0.001"
    assert status["artifacts"]["finalUri"] == f"{status['outputUri']}/final"
    eventually(lambda: job.status["progress"]["percent"] == 100, within=30, what="the last report is stored")
    assert status["usage"]["activeSeconds"] > 0
    assert [attempt["outcome"] for attempt in status["attempts"]] == ["Paused", "Succeeded"]


def test_two_pods_of_an_own_program_meet(methods: None, run_job: JobFactory) -> None:
    """DDP over replicas: torchrun finds the group by its variables alone."""
    spec = {"methodRef": {"name": "e2e-grouped"}, "replicas": 2, "resources": {"device": None, "cpu": None, "memory": None}}
    run_job("group", spec).wait_phase("Succeeded")


def test_a_parameter_that_does_not_fit_waits_with_a_sentence(methods: None, run_job: JobFactory) -> None:
    """B-01: nothing is started; the condition names parameter, value and fix."""
    job = run_job("wrong", {"methodRef": {"name": "e2e-counting", "parameters": {"SECONDS_PER_STEP": "9"}}})
    eventually(lambda: job.condition("Valid").get("status") == "False", within=60, what="the condition Valid")
    assert "spec.methodRef.parameters.SECONDS_PER_STEP: 9 is above the maximum 5" in job.condition("Valid")["message"]
    assert job.pods() == []

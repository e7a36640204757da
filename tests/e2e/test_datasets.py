"""Datasets on a real cluster: a pod looks at the data, a job by name waits for it and trains, and a file is uploaded from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, DATASET_KIND
from tests.e2e.conftest import JobFactory
from tests.support.platform import Kubectl, Platform, eventually

pytestmark = pytest.mark.e2e
ADDRESS = "configmap://sft/train.jsonl"
READY = "ReadyForTraining"


class Rows:
    """A Dataset of the test's own."""

    def __init__(self, kubectl: Kubectl, name: str) -> None:
        self._kubectl, self.name = kubectl, name

    def apply(self, **spec: Any) -> None:
        metadata = {"name": self.name}
        self._kubectl.apply({"apiVersion": API_VERSION, "kind": DATASET_KIND, "metadata": metadata, "spec": spec})

    @property
    def object(self) -> dict[str, Any]:
        found = self._kubectl.get("dataset.finetune.dev", self.name)
        assert found is not None, f"dataset {self.name} is gone"
        return found

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.object.get("status") or {})

    def message(self) -> str:
        return next(str(c["message"]) for c in self.status["conditions"] if c["type"] == "Ready")

    def wait(self, phase: str, within: float = 180) -> dict[str, Any]:
        """The status, once the Dataset as it is now was judged."""

        def check() -> dict[str, Any] | None:
            found = self.object
            status = found.get("status") or {}
            is_current = status.get("observedGeneration") == found["metadata"]["generation"]
            return status if is_current and status.get("phase") == phase else None

        return eventually(check, within=within, what=f"dataset {self.name} is {phase}")

    def children(self) -> list[str]:
        found = self._kubectl.items("jobs,pods,configmaps", f"finetune.dev/dataset={self.name}")
        return [f"{item['kind']} {item['metadata']['name']}" for item in found]


@pytest.fixture
def rows(namespace: Kubectl, request: pytest.FixtureRequest) -> Iterator[Rows]:
    """A name for a Dataset; deleted after the test."""
    made = Rows(namespace, request.node.name.removeprefix("test_").replace("_", "-")[:40].strip("-"))
    yield made
    namespace("delete", "dataset.finetune.dev", made.name, "--ignore-not-found", "--wait=true")


def test_a_look_finds_what_is_there_and_leaves_nothing(rows: Rows) -> None:
    """D-04, D-05, D-06, E-28: under Pod Security restricted; the pod's Job goes when its answer is in the status."""
    tokenizer = {"tokenizer": {"uri": "s3://finetune/models/tiny-test"}, "secretRef": {"name": "finetune-storage"}, "region": "us-east-1"}
    rows.apply(uri=ADDRESS, description="What the tests train on.", **tokenizer)
    status = rows.wait(READY)
    assert 0 < status["tokens"]["p50"] <= status["tokens"]["p95"] <= status["tokens"]["max"]
    assert status["examples"] == 474
    assert status["isWhole"] is True
    assert status["format"]
    assert len(status["samples"]) == 3
    assert any(c["type"] == "DatasetSmall" and c["status"] == "True" for c in status["conditions"])
    eventually(lambda: rows.children() == [], within=60, what="nothing of the look is left")


def test_a_job_waits_for_its_dataset_and_keeps_it(namespace: Kubectl, rows: Rows, run_job: JobFactory) -> None:
    """AC-47, D-04: a sentence instead of pods; it goes on by itself; a later edit is for new jobs."""
    job = run_job("by-dataset", {"dataset": {"uri": f"ref:{rows.name}"}, "training": {"maxSteps": 500}})
    eventually(lambda: job.condition("Valid").get("reason") == "DatasetNotFound", within=60, what="a job without its Dataset")
    rows.apply(uri="configmap://sft/absent.jsonl")
    rows.wait("Invalid")
    assert "ConfigMap sft has no key absent.jsonl; it has train.jsonl" in rows.message()
    eventually(lambda: job.condition("Valid").get("reason") == "DatasetNotReady", within=60, what="a job whose Dataset is Invalid")
    assert "it has train.jsonl" in job.condition("Valid")["message"]
    assert f"kubectl describe dataset {rows.name}" in job.condition("Valid")["message"]
    assert job.pods() == []
    rows.apply(uri=ADDRESS)
    job.wait_step(3)
    assert job.status["resolved"]["dataset.uri"] == {"value": ADDRESS, "source": "dataset", "name": rows.name}
    rows.apply(uri="configmap://sft/absent.jsonl")
    rows.wait("Invalid")
    job.scale(0)
    job.wait_phase("Paused")
    job.scale(1)
    status = job.wait_phase("Succeeded")
    assert (status["run"], status["resolved"]["dataset.uri"]["value"]) == (2, ADDRESS)
    assert job.object["spec"]["dataset"]["uri"] == f"ref:{rows.name}"


def test_a_malformed_row_is_named_and_mended(namespace: Kubectl, rows: Rows) -> None:
    """File, line and field; the same spec is looked at again by request, once for each token."""
    good, bad = json.dumps({"prompt": "a", "completion": "b"}), json.dumps({"prompt": "a", "completion": 3})
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "broken"}}
    namespace.apply({**config, "data": {"rows.jsonl": f"{good}\n{bad}\n"}})
    rows.apply(uri="configmap://broken/rows.jsonl")
    rows.wait("Invalid")
    assert "rows.jsonl, line 2" in rows.message()
    assert "completion" in rows.message()
    namespace.apply({**config, "data": {"rows.jsonl": f"{good}\n{good}\n"}})
    namespace("annotate", "dataset.finetune.dev", rows.name, "finetune.dev/request=validate/mended", "--overwrite")
    status = rows.wait(READY)
    assert (status["examples"], status["lastHandledRequest"]) == (2, "validate/mended")


def test_a_file_is_uploaded_and_trained_on(platform: Platform, namespace: Kubectl, rows: Rows, run_job: JobFactory, tmp_path: Path) -> None:
    """D-02: into the store, under a key of its content; the job's pods read it with the store's own keys."""
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"What is {n}?", "completion": str(n)}) + "\n" for n in range(64)))
    command = [sys.executable, "-m", "finetune_cli", "dataset", "upload", str(file), "--name", rows.name, "-n", namespace.namespace]
    done = subprocess.run(command, capture_output=True, text=True, env=namespace.environment, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    uri = rows.object["spec"]["uri"]
    assert uri.startswith(f"s3://finetune/{namespace.namespace}/datasets/")
    assert list(platform.objects(f"{namespace.namespace}/datasets/")) == [uri.removeprefix("s3://finetune/")]
    assert rows.wait(READY)["examples"] == 64
    table = subprocess.run(
        [sys.executable, "-m", "finetune_cli", "datasets", "-n", namespace.namespace],
        capture_output=True,
        text=True,
        env=namespace.environment,
        check=True,
        timeout=60,
    ).stdout
    assert rows.name in table
    job = run_job("of-upload", {"dataset": {"uri": f"ref:{rows.name}"}, "training": {"maxSteps": 5}})
    job.wait_phase("Succeeded")
    assert job.status["resolved"]["dataset.uri"]["value"] == uri


def test_deleting_a_dataset_leaves_nothing(namespace: Kubectl, rows: Rows) -> None:
    """Also while a pod looks; no finalizer holds it."""
    rows.apply(uri=ADDRESS)
    eventually(lambda: rows.children() != [], within=60, what="a look")
    namespace("delete", "dataset.finetune.dev", rows.name, "--wait=true", "--timeout=30s")
    eventually(lambda: rows.children() == [], within=60, what="nothing is left")

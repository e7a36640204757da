"""Fixtures of the e2e tests: one installed chart, one namespace per module, the test model and data in the store."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.support import git_server
from tests.support.git_server import Clone
from tests.support.install import install_chart
from tests.support.jobs import make_job
from tests.support.platform import BUCKET, ROOT, SYSTEM_NAMESPACE, Job, Kubectl, Platform, StoreConnection

JobFactory = Callable[..., Job]
Untouched = Callable[[Mapping[str, Any]], Job]


@pytest.fixture(scope="session")
def platform(kubeconfig: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """The chart installed from this checkout, the tiny test model uploaded."""
    kubectl = Kubectl(kubeconfig)
    model = tmp_path_factory.mktemp("model") / "tiny-test"
    with FileLock(tmp_path_factory.getbasetemp().parent / "platform.lock"):  # one of pytest's workers after the other
        images = install_chart(kubectl)
        connection = StoreConnection(kubectl)
        platform = Platform(kubectl, connection, images)
        subprocess.run([sys.executable, ROOT / "examples/tiny_model.py", model, "--params", "test"], check=True)
        for file in sorted(model.iterdir()):
            platform.store.fput_object(BUCKET, f"models/tiny-test/{file.name}", str(file))
    yield platform
    connection.close()


@pytest.fixture(scope="module")
def namespace(platform: Platform, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """A namespace under Pod Security restricted, with the store's Secret and the data set."""
    name = "e2e-" + request.module.__name__.rpartition("test_")[2].replace("_", "-")
    kubectl = platform.kubectl.within(name)
    prepare_namespace(platform, name)
    yield kubectl
    platform.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def untouched(platform: Platform, namespace: Kubectl) -> Untouched:
    """The run of a spec that nobody touches: one per module, begun when first asked for; :func:`losses` waits for its end."""
    begun: dict[str, Job] = {}

    def of(spec: Mapping[str, Any]) -> Job:
        key = json.dumps(spec, sort_keys=True)
        if key not in begun:
            begun[key] = Job(platform, namespace, f"untouched-{len(begun) + 1}")
            namespace.apply(make_job(begun[key].name, spec))
        return begun[key]

    return of


def losses(job: Job) -> dict[int, tuple[float, float, str]]:
    """Loss, gradient norm and rows of each step of a job that ends Succeeded."""
    job.wait_phase("Succeeded", within=900)
    return {step: (row.loss, row.grad_norm, row.samples) for step, row in job.rows().items()}


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    """A person's clone of a repository with jobs."""
    with git_server.serve(tmp_path_factory.mktemp("git")) as clone:
        yield clone


def prepare_namespace(platform: Platform, name: str) -> None:
    """Create a namespace a job can run in."""
    kubectl = platform.kubectl
    kubectl.run("delete", "namespace", name, "--ignore-not-found", "--wait=true")
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    secret = kubectl.within(SYSTEM_NAMESPACE).get("secret", "finetune-storage")
    assert secret is not None
    kubectl.within(name).apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "finetune-storage"}, "data": secret["data"]})
    data = ROOT / "examples/data/kubernetes-sft.jsonl"
    kubectl.within(name)("create", "configmap", "sft", f"--from-file=train.jsonl={data}")


@pytest.fixture
def run_job(platform: Platform, namespace: Kubectl) -> Iterator[JobFactory]:
    """Apply a job made from changes to the base job; deleted after the test."""
    made: list[Job] = []

    def run(name: str, spec: Mapping[str, Any] | None = None) -> Job:
        namespace.apply(make_job(name, spec))
        job = Job(platform, namespace, name)
        made.append(job)
        return job

    yield run
    for job in made:
        if namespace.get("finetunejob", job.name) is None:
            continue
        namespace("annotate", "finetunejob", job.name, "finetune.dev/allow-delete-running=true", "--overwrite")
        namespace("delete", "finetunejob", job.name, "--wait=true", "--timeout=120s")

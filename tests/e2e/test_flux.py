"""Git -> Flux's own source- and kustomize-controller -> the cluster -> a trained adapter (issue 6, GitOps).

The controllers are built of their Go modules, which takes minutes the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import flux as gitops
from tests.support.flux import Flux, condition
from tests.support.git_server import Clone
from tests.support.jobs import make_job
from tests.support.platform import Job, Kubectl, Platform, eventually

pytestmark = pytest.mark.e2e
STEPS = 1000
"""More than it makes before a commit has arrived."""
AFTER = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "after"}}


@pytest.fixture(scope="module")
def flux(platform: Platform, namespace: Kubectl, clone: Clone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flux]:
    """Flux with the repository as its source."""
    with gitops.run(platform.kubectl, tmp_path_factory.mktemp("flux")) as flux:
        flux.follow(clone.url)
        yield flux


def held(name: str, **spec: Any) -> dict[str, Any]:
    """A job as it is in Git, paused there: what counts is its spec."""
    document = make_job(name, {"suspend": True, "training": {"maxSteps": 5}})
    return document | {"spec": document["spec"] | spec}


def test_a_job_of_git_is_paused_resumed_and_trained_by_commits(flux: Flux, clone: Clone, platform: Platform, namespace: Kubectl) -> None:
    """Q-01, L-01: ready while the job trains; `suspend: true` in a commit pauses it with nothing lost, the commit's revert resumes it."""
    job = Job(platform, namespace, "from-git")
    first = clone.push("Train", {"jobs/from-git.yaml": make_job(job.name, {"training": {"maxSteps": STEPS}})})
    flux.fetch(first)
    name = flux.add("kustomization", "jobs", path="./jobs", targetNamespace=namespace.namespace)
    flux.applied(name, first, within=300)
    assert job.phase != "Succeeded", "ready, and not yet trained"
    job.wait_step(3)
    paused = clone.push("Pause", {"jobs/from-git.yaml": make_job(job.name, {"training": {"maxSteps": STEPS}, "suspend": True})})
    flux.fetch(paused)
    stopped = job.wait_phase("Paused")["checkpoints"]["latest"]["step"]
    assert 0 < stopped < STEPS
    assert job.pods() == []
    flux.applied(name, paused)
    resumed = clone.revert()
    flux.fetch(resumed)
    flux.applied(name, resumed, within=300)
    status = job.wait_phase("Succeeded")
    assert (status["progress"]["step"], status["attemptCount"], status["usage"].get("lostSteps", 0)) == (STEPS, 2, 0)
    rows = job.rows()
    assert sorted(rows) == list(range(1, STEPS + 1))
    assert {row.attempt for step, row in rows.items() if step <= stopped} == {1}
    assert "adapter_model.safetensors" in job.final_digests()


def test_what_flux_makes_of_a_scale_to_zero(flux: Flux, clone: Clone, namespace: Kubectl) -> None:
    """Q-10, the table of docs/gitops.md: with replicas in Git the next reconciliation sets them back, without it leaves them."""
    commit = clone.push("Scaled", {"scaled/in.yaml": held("in-git", replicas=2), "scaled/out.yaml": held("not-in-git")})
    flux.fetch(commit)
    name = flux.add("kustomization", "scaled", path="./scaled", targetNamespace=namespace.namespace)
    flux.applied(name, commit)
    for job in ("in-git", "not-in-git"):
        namespace("scale", f"finetunejob/{job}", "--replicas=0")
    flux.reconcile(name)
    found = {job: namespace.get("finetunejob", job) or {} for job in ("in-git", "not-in-git")}
    assert {job: manifest["spec"]["replicas"] for job, manifest in found.items()} == {"in-git": 2, "not-in-git": 0}


def test_what_waits_for_the_training_waits_through_a_pause(flux: Flux, clone: Clone, platform: Platform, namespace: Kubectl) -> None:
    """kustomization-until-trained.yaml: not ready while paused; a commit meanwhile counts; what depends on it comes after the training."""
    job = Job(platform, namespace, "awaited")
    first = clone.push("Paused at first", {"until/awaited.yaml": held(job.name), "after/after.yaml": AFTER})
    flux.fetch(first)
    name = flux.add("kustomization-until-trained", "until", path="./until", targetNamespace=namespace.namespace)
    after = flux.add("kustomization", "after", path="./after", targetNamespace=namespace.namespace, dependsOn=[{"name": name}])
    job.wait_phase("Paused")
    eventually(
        lambda: condition(flux.status("kustomization", after), "Ready").get("reason") == "DependencyNotReady", within=120, what="waits"
    )
    waiting = flux.status("kustomization", name)
    assert condition(waiting, "Reconciling").get("status") == "True"
    assert "lastAppliedRevision" not in waiting
    second = clone.push("Train", {"until/awaited.yaml": held(job.name, suspend=False)})
    flux.fetch(second)
    job.wait_phase("Succeeded")
    flux.applied(name, second)
    flux.applied(after, second)
    assert namespace.get("configmap", "after") is not None


def test_a_job_that_cannot_run_fails_what_waits_for_it(flux: Flux, clone: Clone, namespace: Kubectl) -> None:
    """The expression `failed` ends the wait at once, long before the timeout of a week."""
    commit = clone.push("Cannot run", {"broken/broken.yaml": held("broken", suspend=False, presetRef={"name": "nowhere"})})
    flux.fetch(commit)
    name = flux.add("kustomization-until-trained", "broken", path="./broken", targetNamespace=namespace.namespace)
    eventually(
        lambda: condition(flux.status("kustomization", name), "Ready").get("reason") == "HealthCheckFailed", within=120, what="fails"
    )
    assert "broken" in condition(flux.status("kustomization", name), "Ready")["message"]
    assert namespace.get("finetunejob", "broken") is not None

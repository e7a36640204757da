"""Git -> Argo CD's own repository server and application controller -> the cluster -> a trained adapter (issue 6, GitOps).

They are built of Argo CD's Go module, which takes minutes the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import argocd as gitops
from tests.support.argocd import ArgoCD
from tests.support.git_server import Clone
from tests.support.jobs import make_job, merge
from tests.support.platform import Job, Kubectl, Platform, eventually

pytestmark = pytest.mark.e2e
STEPS = 1000
"""More than it makes before a commit has arrived."""
PAUSES = ("/spec/replicas", "/spec/suspend", "/spec/desiredState")
"""What the example leaves to people."""


@pytest.fixture(scope="module")
def argocd(platform: Platform, namespace: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoCD]:
    """Argo CD with the health of our jobs."""
    with gitops.run(platform.kubectl, tmp_path_factory.mktemp("argocd")) as argocd:
        yield argocd


def test_a_job_of_git_is_paused_resumed_and_trained_by_commits(
    argocd: ArgoCD, clone: Clone, platform: Platform, namespace: Kubectl
) -> None:
    """Q-01, L-01: healthy while the job trains; where Git decides on `suspend`, a commit pauses with nothing lost, its revert resumes."""
    job = Job(platform, namespace, "from-git")
    first = clone.push("Train", {"jobs/from-git.yaml": make_job(job.name, {"training": {"maxSteps": STEPS}})})
    argocd.follow("jobs", clone.url, path="jobs", namespace=namespace.namespace, people_decide_on=["/spec/replicas"])
    argocd.synced("jobs", first, "Healthy", within=300)
    assert job.phase != "Succeeded", "healthy, and not yet trained"
    job.wait_step(3)
    paused = clone.push("Pause", {"jobs/from-git.yaml": make_job(job.name, {"training": {"maxSteps": STEPS}, "suspend": True})})
    argocd.refresh("jobs")
    stopped = job.wait_phase("Paused")["checkpoints"]["latest"]["step"]
    assert 0 < stopped < STEPS
    argocd.synced("jobs", paused, "Healthy")
    resumed = clone.revert()
    argocd.synced("jobs", resumed, "Healthy", within=300)
    status = job.wait_phase("Succeeded")
    assert (status["progress"]["step"], status["attemptCount"], status["usage"].get("lostSteps", 0)) == (STEPS, 2, 0)
    assert sorted(job.rows()) == list(range(1, STEPS + 1))
    assert "adapter_model.safetensors" in job.final_digests()
    argocd.synced("jobs", resumed, "Healthy")


def test_what_people_decide_on_is_neither_healed_nor_synced(argocd: ArgoCD, clone: Clone, namespace: Kubectl) -> None:
    """The example as it is: a pause by `kubectl scale` stays although the application heals itself, and a commit does not undo it."""

    def spec() -> dict[str, object]:
        found = namespace.get("finetunejob", "by-hand")
        assert found is not None
        return dict(found["spec"])

    document = make_job("by-hand", {"suspend": True, "replicas": 2, "training": {"maxSteps": 5}})
    first = clone.push("By hand", {"hand/by-hand.yaml": document})
    argocd.follow("by-hand", clone.url, path="hand", namespace=namespace.namespace, people_decide_on=PAUSES)
    argocd.synced("by-hand", first, "Healthy")
    namespace("scale", "finetunejob/by-hand", "--replicas=0")
    argocd.synced("by-hand", first, "Healthy")
    assert spec()["replicas"] == 0
    document["spec"] |= {"suspend": False, "displayName": "From a commit"}
    second = clone.push("Resume and rename", {"hand/by-hand.yaml": document})
    argocd.synced("by-hand", second, "Healthy")
    assert (spec()["displayName"], spec()["suspend"], spec()["replicas"]) == ("From a commit", True, 0)


def test_a_job_that_cannot_run_degrades_the_application(argocd: ArgoCD, clone: Clone, namespace: Kubectl) -> None:
    """The health of deploy/argocd, asked by Argo CD itself."""
    commit = clone.push("Cannot run", {"broken/broken.yaml": make_job("broken", {"presetRef": {"name": "nowhere"}})})
    argocd.follow("broken", clone.url, path="broken", namespace=namespace.namespace, people_decide_on=PAUSES)
    argocd.synced("broken", commit, "Degraded")


def test_waves_go_on_and_hooks_wait_for_the_end(argocd: ArgoCD, clone: Clone, platform: Platform, namespace: Kubectl) -> None:
    """Design §3: a job that trains or is paused holds no later wave up; a sync whose hook is a job ends with that job."""

    def annotated(manifest: dict[str, Any], name: str, value: str) -> dict[str, Any]:
        return merge(manifest, {"metadata": {"annotations": {f"argocd.argoproj.io/{name}": value}}})

    trains, hook = Job(platform, namespace, "in-a-wave"), Job(platform, namespace, "as-a-hook")
    later = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "later"}}
    commit = clone.push(
        "Waves",
        {
            "waves/trains.yaml": annotated(make_job(trains.name, {"training": {"maxSteps": STEPS}}), "sync-wave", "0"),
            "waves/paused.yaml": annotated(make_job("paused-in-a-wave", {"suspend": True}), "sync-wave", "0"),
            "waves/later.yaml": annotated(later, "sync-wave", "1"),
            "waves/hook.yaml": annotated(make_job(hook.name, {"training": {"maxSteps": 20}}), "hook", "PostSync"),
        },
    )
    argocd.follow("waves", clone.url, path="waves", namespace=namespace.namespace, people_decide_on=PAUSES)
    eventually(lambda: namespace.get("configmap", "later"), within=180, what="the later wave")
    assert trains.phase != "Succeeded", "the wave has gone on, and the job has not yet trained"
    eventually(lambda: hook.phase in {"Starting", "Training"}, within=180, what="the hook")
    assert argocd.status("waves")["operationState"]["phase"] == "Running", "the sync waits for its hook"
    hook.wait_phase("Succeeded")
    eventually(lambda: argocd.status("waves")["operationState"]["phase"] == "Succeeded", within=120, what="the sync has ended")
    assert argocd.status("waves")["operationState"]["syncResult"]["revision"] == commit

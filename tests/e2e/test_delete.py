"""Deletion leaves nothing in the cluster, and in the store what output.retain says (Q-09); a cancelled job's objects go too (AC-58)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from finetune_api.constants import ANNOTATION_ALLOW_DELETE, ANNOTATION_PROMOTED, CA_CONFIGMAP
from tests.e2e.conftest import JobFactory, prepare_namespace
from tests.support.host import wait_for_checkpoint
from tests.support.jobs import make_job
from tests.support.platform import SYSTEM_NAMESPACE, Job, Kubectl, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e
SHORT: dict[str, Any] = {"training": {"maxSteps": 3}}
LONG: dict[str, Any] = {"training": {"maxSteps": 2000}}


OF_THE_NAMESPACE = f"configmap/{CA_CONFIGMAP}"
"""Made with the first job of a namespace, for all that follow."""
OF_OTHERS = (".argoproj.io", ".toolkit.fluxcd.io")
"""Kinds that other tests bring and take away meanwhile."""


class Contents:
    """Everything in a namespace, of whatever kind; without events, which tell of what is gone."""

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl
        kinds = kubectl("api-resources", "--verbs=list", "--namespaced", "-o", "name").split()
        self._kinds = ",".join(kind for kind in kinds if not kind.startswith("events") and not kind.endswith(OF_OTHERS))
        self._before = self._now()

    def wait_as_before(self) -> None:
        """Nothing is there that was not there in the beginning."""
        eventually(lambda: not self._left() or None, within=60, what=f"nothing left of {self._left()}")

    def _left(self) -> set[str]:
        return self._now() - self._before - {OF_THE_NAMESPACE}

    def _now(self) -> set[str]:
        return set(self._kubectl("get", self._kinds, "-o", "name").split())


@pytest.fixture
def contents(namespace: Kubectl) -> Contents:
    """What is in the namespace before the test."""
    return Contents(namespace)


@pytest.mark.parametrize("retain", ["Keep", "Delete"])
def test_delete_a_finished_job(platform: Platform, namespace: Kubectl, contents: Contents, retain: str) -> None:
    """No child stays; the objects stay or go."""
    name = f"finished-{retain.lower()}"
    namespace.apply(make_job(name, {**SHORT, "output": {"retain": retain}}))
    job = Job(platform, namespace, name)
    job.wait_phase("Succeeded")
    prefix = job.prefix
    namespace("delete", "finetunejob", name, "--timeout=120s")
    contents.wait_as_before()
    assert bool(platform.objects(prefix)) == (retain == "Keep")


def test_a_running_job_is_not_deleted_by_accident(run_job: JobFactory, namespace: Kubectl, contents: Contents) -> None:
    """DELETE of a running job is refused with the hint; after Stopped it goes (AC-03)."""
    job = run_job("running", LONG)
    job.wait_step(1)
    refused = namespace.run("delete", "finetunejob", "running", "--wait=false", check=False)
    assert refused.returncode != 0
    assert "desiredState" in refused.stderr
    namespace("patch", "finetunejob", "running", "--type=merge", "-p", '{"spec":{"desiredState":"Stopped"}}')
    job.wait_phase("Stopped")
    assert job.pods() == []
    namespace("delete", "ftj", "running", "--timeout=120s")
    contents.wait_as_before()


def test_a_paused_job_is_deleted_with_its_objects(run_job: JobFactory, platform: Platform, namespace: Kubectl, contents: Contents) -> None:
    """A pause is no run: DELETE is not refused, and retain Delete empties the store without pods of the job."""
    job = run_job("paused", {**LONG, "output": {"retain": "Delete"}})
    job.wait_step(1)
    job.scale(0)
    assert job.wait_phase("Paused")["pause"]["saved"] is True
    prefix = job.prefix
    assert platform.objects(prefix)
    namespace("delete", "ftj", "paused", "--timeout=120s")
    assert platform.objects(prefix) == {}
    contents.wait_as_before()


def test_a_running_job_deleted_on_purpose_is_saved(run_job: JobFactory, platform: Platform, namespace: Kubectl, contents: Contents) -> None:
    """With the annotation DELETE of a running job works; its pods end with a checkpoint of their step, the only one (AC-03, Q-09)."""
    job = run_job("forced", {**LONG, "checkpoint": {"steps": 10_000}})
    reached = job.wait_step(2)
    prefix = job.prefix
    assert not [key for key in platform.objects(prefix) if "/checkpoint-" in key]
    namespace("annotate", "finetunejob", "forced", f"{ANNOTATION_ALLOW_DELETE}=true")
    namespace("delete", "ftj", "forced", "--timeout=120s")
    contents.wait_as_before()
    found = platform.objects(prefix)
    folders = {key.rpartition("/checkpoint-")[2].partition("/")[0] for key in found if "/checkpoint-" in key}
    assert len(folders) == 1, sorted(found)
    folder = f"{prefix}a1/checkpoint-{folders.pop()}"
    manifest = json.loads(platform.read(f"{folder}/manifest.json"))
    assert manifest["trigger"] == "signal"
    assert manifest["step"] >= reached
    assert {file["path"]: file["size"] for file in manifest["files"]}.items() <= {
        key.removeprefix(f"{folder}/"): size for key, size in found.items()
    }.items(), "every file of the manifest is there, whole"


def test_what_a_cancelled_job_wrote_goes_unless_promoted(run_job: JobFactory, platform: Platform, namespace: Kubectl) -> None:
    """After output.retentionDays (here none) the prefix is empty and the status says since when; a promoted job keeps it (OP-15, AC-58)."""
    spec = {**LONG, "output": {"retentionDays": 0}}
    jobs = {name: run_job(name, spec) for name in ("cancelled", "promoted")}
    namespace("annotate", "finetunejob", "promoted", f"{ANNOTATION_PROMOTED}=tests")
    for name, job in jobs.items():
        wait_for_checkpoint(job, 0, within=240)
        namespace("patch", "finetunejob", name, "--type=merge", "-p", '{"spec":{"desiredState":"Cancelled"}}')
    for job in jobs.values():
        job.wait_phase("Cancelled")
    gone, kept = jobs["cancelled"], jobs["promoted"]
    status = eventually(lambda: s if (s := gone.status).get("artifactsRemovedAt") else None, within=120, what="the objects are removed")
    assert status["artifactsRemovedAt"] >= status["finishedAt"]
    assert status.get("checkpoints", {}).get("latest") is None
    assert gone.objects() == {}
    eventually(lambda: kept.condition("Reconciling").get("reason") == "ArtifactsPromoted" or None, within=60, what="kept for good")
    latest = kept.status["checkpoints"]["latest"]
    assert f"a{latest['attempt']}/checkpoint-{latest['step']}/manifest.json" in kept.objects()
    assert not kept.status.get("artifactsRemovedAt")


@pytest.fixture(params=["operator-up", pytest.param("operator-down", marks=pytest.mark.alone)])
def operator(platform: Platform, request: pytest.FixtureRequest) -> Iterator[str]:
    """The operator's state during the test; brought back afterwards."""
    yield str(request.param)
    platform.kubectl.within(SYSTEM_NAMESPACE)("scale", "deployment/finetune-operator", "--replicas=1")
    platform.kubectl.within(SYSTEM_NAMESPACE)("rollout", "status", "deployment/finetune-operator", "--timeout=120s")


def test_namespace_deleted_while_training(platform: Platform, operator: str, fault: Fault) -> None:
    """Kubectl delete ns ends, with an operator also where it is to empty the store (retain Delete); without one nothing waits for it."""
    name = f"e2e-doomed-{operator}"
    prepare_namespace(platform, name)
    kubectl = platform.kubectl.within(name)
    retain = "Keep" if operator == "operator-down" else "Delete"
    kubectl.apply(make_job("doomed", {**LONG, "output": {"retain": retain}, "pausePolicy": {"graceSeconds": 15}}))
    Job(platform, kubectl, "doomed").wait_step(1)
    fault.strikes(f"namespace deleted during a run, {operator.replace('-', ' ')}")
    if operator == "operator-down":
        platform.kubectl.within(SYSTEM_NAMESPACE)("scale", "deployment/finetune-operator", "--replicas=0")
        eventually(
            lambda: not platform.kubectl.within(SYSTEM_NAMESPACE).items("pods", "app.kubernetes.io/component=operator") or None,
            within=60,
            what="no operator",
        )
    platform.kubectl("delete", "namespace", name, "--wait=false")
    eventually(lambda: platform.kubectl.get("namespace", name) is None or None, within=180, what=f"namespace {name} gone")
    fault.recovered()
    fault.ends("namespace gone, nothing stuck")

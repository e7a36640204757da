"""Whatever is done to a run from outside: it ends Succeeded with the losses of a run nobody touched (issue 4: OP-11, R-06, Z)."""

from __future__ import annotations

import base64
import json
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from finetune_api.contract.env import CONFIGMAP_DIR, WORK_DIR
from tests.e2e.conftest import JobFactory, Untouched, losses
from tests.support.host import (
    address,
    clock_library,
    cut,
    full_disk,
    restart_runtime,
    supervisor,
    told_of_disk,
    wait_for_checkpoint,
)
from tests.support.jobs import merge
from tests.support.platform import ROOT, SYSTEM_NAMESPACE, Job, Kubectl, Platform, eventually
from tests.support.reliability import Fault

pytestmark = pytest.mark.e2e
soak = pytest.mark.skipif(not os.environ.get("FINETUNE_SOAK"), reason="minutes each; make soak")
STEPS = 900
"""So many that a machine with nothing else to do still trains when a fault comes to be seen."""
SPEC: dict[str, Any] = {"adapter": {"dropout": 0.05}, "training": {"maxSteps": STEPS}, "checkpoint": {"steps": 50}}
TWO_PODS: dict[str, Any] = merge(SPEC, {"replicas": 2, "training": {"gradAccumSteps": 2}})
OPERATOR = "app.kubernetes.io/component=operator"
KILL_EVERY_SECONDS, MOST_KILLS = 10.0, 40


def uids(job: Job) -> set[str]:
    """Which pods the job has."""
    return {pod["metadata"]["uid"] for pod in job.pods()}


@pytest.mark.alone  # only for the untouched run, which the next one needs too
@pytest.mark.parametrize("way", ["evicted", pytest.param("deleted", marks=soak)])
def test_a_pod_that_is_asked_to_go(run_job: JobFactory, untouched: Untouched, way: str, fault: Fault) -> None:
    """A drain's eviction, and kubectl delete pod: saved within the grace period, nothing is lost, nothing counts as a retry."""
    reference = untouched(SPEC)
    job = run_job(f"pod-{way}", SPEC)
    job.wait_step(120)
    pod = job.pod(0)
    fault.strikes(f"pod {way}{' (eviction API)' if way == 'evicted' else ' with its grace period'}")
    if way == "evicted":
        path = f"/api/v1/namespaces/{job.kubectl.namespace}/pods/{pod}/eviction"
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": job.kubectl.namespace}}
        job.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    else:
        job.kubectl("delete", "pod", pod, "--wait=false")
    job.wait_training(run=2)
    fault.recovered()
    final = job.wait_phase("Succeeded")
    assert final["usage"].get("lostSteps", 0) == 0
    assert final.get("retry", {}).get("used", 0) == 0, "a disruption is not counted"
    assert losses(job) == losses(reference)
    fault.ends_with(final)


@pytest.mark.alone
def test_the_operator_is_killed_again_and_again(run_job: JobFactory, platform: Platform, untouched: Untouched, fault: Fault) -> None:
    """Every ten seconds from the job's creation until its trainer has ended: one run in one pod, no step is lost."""
    reference = untouched(SPEC)
    system = platform.kubectl.within(SYSTEM_NAMESPACE)
    job = run_job("operator-killed", SPEC)
    seen: set[str] = set()
    kills = 0
    while kills < MOST_KILLS and not (seen and trainer_has_ended(job)):
        system("delete", "pod", "-l", OPERATOR, "--wait=false", "--grace-period=1")
        kills += 1
        threading.Event().wait(KILL_EVERY_SECONDS)  # the fault itself: how often, not what is waited for
        seen |= uids(job)
    fault.strikes("operator killed every 10 s during a whole run", kills)
    final = job.wait_phase("Succeeded", within=240)
    fault.recovered()
    assert kills >= 3, "the run was too short for the test"
    assert len(seen) == 1
    assert (final["run"], len(final["attempts"])) == (1, 1)
    assert losses(job) == losses(reference)
    fault.ends_with(final)


def trainer_has_ended(job: Job) -> bool:
    """Whether no pod of the job trains (any more)."""
    return all(pod["status"].get("phase") in ("Succeeded", "Failed") for pod in job.pods())


class Keys:
    """The store's secret key, base64: in the server, and in the Secret of a namespace with jobs."""

    def __init__(self, platform: Platform, namespace: Kubectl) -> None:
        self._platform, self._namespace = platform, namespace
        self._system = platform.kubectl.within(SYSTEM_NAMESPACE)
        secret = self._system.get("secret", "finetune-storage")
        assert secret is not None
        self._before = str(secret["data"]["AWS_SECRET_ACCESS_KEY"])
        self.is_changed = False

    def rotate_server(self) -> str:
        """Give the server a new secret key; returns it."""
        self.is_changed = True
        key = base64.b64encode(secrets.token_hex(12).encode()).decode()
        self._set(self._system, key)
        self._restart()
        return key

    def rotate_jobs(self, key: str) -> None:
        """Give the jobs the new key."""
        self._set(self._namespace, key)

    def restore(self) -> None:
        """As before."""
        self._set(self._system, self._before)
        self._set(self._namespace, self._before)
        self._restart()
        self._platform.reconnect()
        self.is_changed = False

    def _set(self, kubectl: Kubectl, key: str) -> None:
        patch = {"data": {"AWS_SECRET_ACCESS_KEY": key}}
        kubectl("patch", "secret", "finetune-storage", "--type=merge", "-p", json.dumps(patch))

    def _restart(self) -> None:
        self._system("rollout", "restart", "deployment/finetune-minio")
        self._system("rollout", "status", "deployment/finetune-minio", "--timeout=120s")


@pytest.fixture
def keys(platform: Platform, namespace: Kubectl) -> Iterator[Keys]:
    """The store's keys; the old ones again after the test."""
    made = Keys(platform, namespace)
    yield made
    if made.is_changed:
        made.restore()


@pytest.mark.alone
def test_the_stores_keys_rotate(run_job: JobFactory, untouched: Untouched, keys: Keys, fault: Fault) -> None:
    """First the server, then the job's Secret: uploads fail and are said to, then go on in the same pod; nothing restarts (design §4).

    A run that comes to its end meanwhile waits for its result to be taken.
    """
    expected = losses(untouched(SPEC))
    job = run_job("keys-rotate", SPEC)
    wait_for_checkpoint(job, 0, within=240)
    before = uids(job)
    fault.strikes("the store's keys rotate during a run")
    new = keys.rotate_server()
    eventually(lambda: job.condition("CheckpointUploadFailing").get("status") == "True", within=180, what="the refusal is said")
    refused = int(job.status["checkpoints"]["latest"]["step"])
    keys.rotate_jobs(new)
    wait_for_checkpoint(job, refused, within=240)
    fault.recovered()
    eventually(lambda: job.condition("CheckpointUploadFailing").get("status") != "True", within=60, what="the condition is gone")
    final = job.wait_phase("Succeeded")
    assert uids(job) == before
    keys.restore()
    assert final["run"] == 1
    assert losses(job) == expected
    fault.ends("same pod, uploads went on with the new keys", 0)


@pytest.mark.alone  # for the untouched run, which others need too
def test_a_disk_that_is_full(run_job: JobFactory, untouched: Untouched, fault: Fault) -> None:
    """Saves are skipped with a condition while there is no space, training goes on; the next save is complete, the losses are the same."""
    reference = untouched(SPEC)
    job = run_job("disk-full", SPEC)
    job.wait_step(60)
    pid = supervisor(job, 0)
    fault.strikes("disk of the pod full for a while")
    with full_disk(pid, f"{WORK_DIR}/output"):
        eventually(lambda: told_of_disk(job) or None, within=120, what="the condition CheckpointSkipped")
        skipped = job.status["progress"]["step"]
    wait_for_checkpoint(job, skipped)
    fault.recovered()
    eventually(lambda: not told_of_disk(job) or None, within=60, what="the condition is gone")
    final = job.wait_phase("Succeeded")
    assert (final["run"], len(final["attempts"])) == (1, 1)
    assert losses(job) == losses(reference)
    fault.ends("saves skipped with a condition, training went on, same losses", int(final["usage"].get("lostSteps", 0)))


@pytest.mark.alone
@soak
def test_the_container_runtime_restarts(run_job: JobFactory, untouched: Untouched, fault: Fault) -> None:
    """The runtime is killed and comes back: a container belongs to its shim, trains on meanwhile, and the node finds it again."""
    reference = untouched(SPEC)
    job = run_job("runtime-restarts", SPEC)
    job.wait_step(60)
    before = uids(job)
    fault.strikes("container runtime of the node killed and started again during a run")
    restart_runtime()
    job.platform.reconnect()  # what kubectl forwards goes through the runtime
    final = job.wait_phase("Succeeded")
    fault.recovered()
    assert uids(job) == before
    assert (final["run"], len(final["attempts"])) == (1, 1)
    assert losses(job) == losses(reference)
    fault.ends_with(final)


@pytest.fixture(scope="module")
def other_clock(namespace: Kubectl) -> Callable[[int], dict[str, Any]]:
    """Changes to a job whose pods' clock is this many seconds ahead: the library comes beside the rows, in their ConfigMap."""
    rows = (ROOT / "examples/data/kubernetes-sft.jsonl").read_bytes()
    files = {"train.jsonl": rows, "libfaketime.so.1": clock_library()}
    encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other-clock"}, "binaryData": encoded}
    namespace("create", "-f", "-", stdin=json.dumps(document))  # too large for the annotation of an apply

    def changes(seconds: int) -> dict[str, Any]:
        variables = {
            "LD_PRELOAD": f"{CONFIGMAP_DIR}/other-clock/libfaketime.so.1",
            "FAKETIME": f"{seconds:+d}s",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        env = [{"name": name, "value": value} for name, value in variables.items()]
        return {"dataset": {"uri": "configmap://other-clock/train.jsonl"}, "resources": {"podTemplate": {"env": env}}}

    return changes


@soak
def test_a_node_whose_clock_is_some_minutes_off(
    run_job: JobFactory, untouched: Untouched, other_clock: Callable[[int], dict[str, Any]], fault: Fault
) -> None:
    """Ten minutes ahead, within what S3 allows: nothing of a run depends on the time of day; a pause and a resume are exact, too."""
    reference = untouched(SPEC)
    fault.strikes("clock of the pod 10 min ahead")
    job = run_job("clock-ahead", merge(SPEC, other_clock(600)))
    job.wait_step(60)
    job.scale(0)
    assert job.wait_phase("Paused")["pause"]["saved"] is True
    job.scale(1)
    final = job.wait_phase("Succeeded")
    fault.recovered()
    assert losses(job) == losses(reference)
    fault.ends_with(final)


@soak
def test_a_node_whose_clock_is_far_off(run_job: JobFactory, other_clock: Callable[[int], dict[str, Any]], fault: Fault) -> None:
    """An hour ahead, the store refuses every request: the job says that it is the clock, not the keys."""
    fault.strikes("clock of the pod 1 h ahead")
    job = run_job("clock-wrong", merge(SPEC, other_clock(3600)))
    final = job.wait_phase("Failed", within=240)
    assert final["failure"]["class"] == "StorageAuth"
    assert "clock" in final["failure"]["message"], final["failure"]
    fault.ends_with(final)


@soak
def test_a_short_cut_between_two_ranks(run_job: JobFactory, untouched: Untouched, fault: Fault) -> None:
    """No packet between the pods for some seconds: the ranks wait for each other, then go on in the same run."""
    reference = untouched(TWO_PODS)
    job = run_job("cut-short", TWO_PODS)
    job.wait_step(60)
    before = uids(job)
    fault.strikes("network between two ranks cut for 10 s")
    with cut(supervisor(job, 0), address(job, 1)):
        threading.Event().wait(10.0)  # the fault itself
    job.wait_step(min(STEPS, job.status["progress"]["step"] + 100))
    fault.recovered()
    assert uids(job) == before
    final = job.wait_phase("Succeeded")
    assert final["run"] == 1
    assert losses(job) == losses(reference)
    fault.ends_with(final)


@soak
def test_a_lasting_cut_between_two_ranks(run_job: JobFactory, untouched: Untouched, fault: Fault) -> None:
    """The network does not come back: the group is given up after a minute of silence and starts again as a whole."""
    reference = untouched(TWO_PODS)
    job = run_job("cut-for-good", TWO_PODS)
    wait_for_checkpoint(job, 0, within=240)
    fault.strikes("network between two ranks cut for good")
    with cut(supervisor(job, 0), address(job, 1)):
        eventually(lambda: job.status.get("run", 0) >= 2 or None, within=300, what="a second run")
    job.wait_training(run=2)
    fault.recovered()
    final = job.wait_phase("Succeeded")
    assert final["attempts"][0]["outcome"] in {"PeerLost", "Stalled"}
    assert losses(job) == losses(reference)
    fault.ends_with(final)

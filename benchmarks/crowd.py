"""Many training jobs without training: real FineTuneJobs, Jobs and pods on a node that is only an object, and real tokens of those pods."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from kubernetes import client

from benchmarks.environment import THREADS, create_jobs, namespace
from finetune_api.constants import ANNOTATION_ALLOW_DELETE, LABEL_JOB
from finetune_api.contract.env import PROGRESS_AUDIENCE, TRAINER_CONTAINER
from tests.support.platform import Kubectl

NODE = "benchmark-nowhere"
SELECTOR = {"finetune.dev/benchmark": "crowd"}
TAINT = {"key": "finetune.dev/benchmark", "value": "crowd", "effect": "NoSchedule"}
HEARTBEAT_SECONDS = 5.0
PATIENCE_SECONDS = 600.0


@dataclass(frozen=True)
class Trainer:
    """A pod that could post."""

    job: str
    run: int
    token: str


@contextmanager
def crowd(kubectl: Kubectl, name: str, jobs: int) -> Iterator[list[Trainer]]:
    """``jobs`` FineTuneJobs in a namespace of their own, each with a pod that says it is running."""
    with _node(), namespace(kubectl, name) as inside:
        try:
            yield list(_start(inside.namespace, jobs))
        finally:
            _remove(inside)


def _remove(inside: Kubectl) -> None:
    """Delete jobs and pods until none is left: nobody else ends pods of a node without a kubelet."""
    inside("annotate", "finetunejobs", "--all", f"{ANNOTATION_ALLOW_DELETE}=true")
    inside("delete", "finetunejobs,jobs", "--all", "--wait=false")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while any(inside.items(kind) for kind in ("pods", "jobs", "finetunejobs")):
        inside.run("delete", "pods", "--all", "--force", "--grace-period=0", "--wait=false", check=False)
        if time.monotonic() > deadline:
            raise SystemExit(f"jobs and pods of {inside.namespace} were not gone within {PATIENCE_SECONDS:.0f} s")
        time.sleep(1)


def _start(name: str, jobs: int) -> Iterator[Trainer]:
    tolerations = [{"key": TAINT["key"], "operator": "Exists"}]
    resources = {"nodeSelector": SELECTOR, "tolerations": tolerations, "cpu": "1m", "memory": "1Mi"}
    create_jobs(name, [f"crowd-{number}" for number in range(jobs)], {"resources": resources})
    pods = _scheduled(name, jobs)
    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(_act_as_kubelet, pods)


def _scheduled(name: str, count: int) -> list[Any]:
    """All pods, once each has its node."""
    core, deadline = client.CoreV1Api(), time.monotonic() + PATIENCE_SECONDS
    while True:
        pods: list[Any] = core.list_namespaced_pod(name, field_selector=f"spec.nodeName={NODE}").items
        if len(pods) >= count:
            return pods
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(pods)} of {count} pods were scheduled to the node {NODE} within {PATIENCE_SECONDS:.0f} s")
        time.sleep(0.5)


def _act_as_kubelet(pod: Any) -> Trainer:
    """Say that the pod runs, and get its token as the kubelet would."""
    core, metadata = client.CoreV1Api(), pod.metadata
    state = {
        "name": TRAINER_CONTAINER,
        "ready": True,
        "started": True,
        "restartCount": 0,
        "image": "none",
        "imageID": "none",
        "state": {"running": {"startedAt": _now()}},
    }
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [state]}
    core.patch_namespaced_pod_status(metadata.name, metadata.namespace, {"status": status})
    bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata.name, "uid": metadata.uid}
    request: Any = {"spec": {"audiences": [PROGRESS_AUDIENCE], "expirationSeconds": 3600, "boundObjectRef": bound}}
    answer: Any = core.create_namespaced_service_account_token("default", metadata.namespace, request)
    return Trainer(metadata.labels[LABEL_JOB], 1, answer.status.token)


@contextmanager
def _node() -> Iterator[None]:
    """A node that is an object with a heartbeat."""
    core: Any = client.CoreV1Api()
    core.create_node({"metadata": {"name": NODE, "labels": SELECTOR}, "spec": {"taints": [TAINT]}})
    stop = threading.Event()
    beat = threading.Thread(target=_beat, args=(stop,), daemon=True)
    _say_ready()
    beat.start()
    try:
        yield
    finally:
        stop.set()
        beat.join()
        core.delete_node(NODE)


def _beat(stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT_SECONDS):
        _say_ready()


def _say_ready() -> None:
    room = {"cpu": "64", "memory": "256Gi", "pods": "10000", "ephemeral-storage": "1Ti"}
    ready = {"type": "Ready", "status": "True", "reason": "Benchmark", "message": "an object", "lastHeartbeatTime": _now()}
    body = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
    client.CoreV1Api().patch_node_status(NODE, body)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")

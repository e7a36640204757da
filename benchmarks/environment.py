"""Where the benchmarks on a cluster run: the cluster of `make cluster`, the chart installed there, one namespace per benchmark."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from prometheus_client.parser import text_string_to_metric_families

from examples.tiny_model import write_model
from finetune_api.constants import DEFAULT_STORE_SECRET, GROUP, PLURAL, VERSION
from tests.support.install import install_chart
from tests.support.jobs import make_job
from tests.support.platform import BUCKET, RELEASE, ROOT, SYSTEM_NAMESPACE, Kubectl, Platform, StoreConnection

OPERATOR, STORE = "finetune-operator", "finetune-minio"
OPERATOR_LABELS = f"app.kubernetes.io/instance={RELEASE},app.kubernetes.io/component=operator"
MODEL = "tiny-test"
NAMESPACE_SECONDS = 900.0
THREADS = 8


class NoClusterError(Exception):
    """There is no cluster to measure on."""


def kubeconfig() -> Path:
    """Kubeconfig of the running cluster.

    Raises:
        NoClusterError: none is running.
    """
    done = subprocess.run([sys.executable, "-m", "finetune_cluster", "kubeconfig"], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoClusterError(f"{done.stderr.strip()} (`make cluster`)")
    return Path(done.stdout.strip())


def connect() -> Kubectl:
    """Connect kubectl and the Python client to the cluster; installs the chart of this checkout where it is not installed."""
    path = kubeconfig()
    config.load_kube_config(str(path))
    kubectl = Kubectl(path)
    if kubectl.within(SYSTEM_NAMESPACE).get("deployment", OPERATOR) is None:
        install_chart(kubectl)
    for deployment in (STORE, OPERATOR):
        kubectl.within(SYSTEM_NAMESPACE)("rollout", "status", f"deployment/{deployment}", "--timeout=240s")
    return kubectl


@contextmanager
def platform() -> Iterator[Platform]:
    """The cluster with its embedded store, the small test model in it."""
    kubectl = connect()
    connection = StoreConnection(kubectl)
    try:
        cluster = Platform(kubectl, connection, images={})
        with tempfile.TemporaryDirectory() as directory:
            write_model(Path(directory), params="test")
            for file in sorted(Path(directory).iterdir()):
                cluster.store.fput_object(BUCKET, f"models/{MODEL}/{file.name}", str(file))
        yield cluster
    finally:
        connection.close()


@contextmanager
def namespace(kubectl: Kubectl, name: str) -> Iterator[Kubectl]:
    """A new namespace in which jobs can run; removed with all that is in it, and waited for, before and after."""
    remove_namespace(kubectl, name)
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    inside = kubectl.within(name)
    inside.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": DEFAULT_STORE_SECRET}, "data": _storage_secret(kubectl)})
    inside("create", "configmap", "sft", f"--from-file=train.jsonl={ROOT / 'examples/data/kubernetes-sft.jsonl'}")
    try:
        yield inside
    finally:
        remove_namespace(kubectl, name)


def remove_namespace(kubectl: Kubectl, name: str) -> None:
    """Remove a namespace and wait until it is gone: what still ends would disturb the next measurement."""
    kubectl.run("delete", "namespace", name, "--ignore-not-found", "--wait=false")
    deadline = time.monotonic() + NAMESPACE_SECONDS
    while kubectl.get("namespace", name) is not None:
        if time.monotonic() > deadline:
            raise SystemExit(f"namespace {name} is not gone after {NAMESPACE_SECONDS:.0f} s")
        time.sleep(0.5)


def create_jobs(namespace: str, names: Iterable[str], changes: Mapping[str, Any]) -> None:
    """Create FineTuneJobs made from changes to the base job, several at a time."""
    api = client.CustomObjectsApi()

    def create(name: str) -> None:
        api.create_namespaced_custom_object(GROUP, VERSION, namespace, PLURAL, make_job(name, changes))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(create, names))


def operator_pod() -> Any:
    """The operator's running pod; benchmarks want one replica, so that one process does all the work."""
    pods = client.CoreV1Api().list_namespaced_pod(SYSTEM_NAMESPACE, label_selector=OPERATOR_LABELS).items
    running = [pod for pod in pods if _is_running(pod)]
    if len(running) != 1:
        raise SystemExit(f"{len(running)} operator pods are running in {SYSTEM_NAMESPACE}; the benchmark needs one")
    return running[0]


def _is_running(pod: Any) -> bool:
    return pod.status.phase == "Running" and pod.metadata.deletion_timestamp is None


@contextmanager
def operator_metrics(kubectl: Kubectl) -> Iterator[str]:
    """URL of the operator's metrics."""
    pod = operator_pod()
    with kubectl.within(SYSTEM_NAMESPACE).port_forward(f"pod/{pod.metadata.name}", 8080) as port:
        yield f"http://127.0.0.1:{port}/metrics"


def scrape(url: str) -> dict[tuple[str, ...], float]:
    """Samples of a metrics page by (name, label values in the order of their names)."""
    families = list(text_string_to_metric_families(urllib3.request("GET", url, timeout=30.0).data.decode()))
    return {
        (sample.name, *(sample.labels[label] for label in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


def _storage_secret(kubectl: Kubectl) -> dict[str, str]:
    secret = kubectl.within(SYSTEM_NAMESPACE).get("secret", DEFAULT_STORE_SECRET)
    if secret is None:
        raise SystemExit(f"no Secret {DEFAULT_STORE_SECRET} in {SYSTEM_NAMESPACE}: is the chart's embedded store on?")
    return dict(secret["data"])

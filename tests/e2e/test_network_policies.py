"""The chart's NetworkPolicies in force: a job trains, pauses and goes on, and strangers reach neither ranks nor operator nor store.

The local node's network plugin knows no policies: :mod:`tests.support.policies` stands in for one that does.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import JobFactory
from tests.support.install import install_chart
from tests.support.platform import SYSTEM_NAMESPACE, Kubectl, Platform, eventually
from tests.support.policies import enforced

pytestmark = [pytest.mark.e2e, pytest.mark.alone]
OPERATOR = "deployment/finetune-operator"
REACH = """\
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
    print("reached")
except OSError as error:
    print("refused", error)
"""
LISTEN = "import http.server; http.server.test(http.server.SimpleHTTPRequestHandler, port=8000)"
MASTER_PORT = 29500
METRICS_PORT = 9090


@pytest.fixture
def stranger(platform: Platform) -> Iterator[Kubectl]:
    """A namespace with a pod that belongs to nobody, and listens."""
    kubectl = platform.kubectl.within("e2e-stranger")
    kubectl.run("delete", "namespace", kubectl.namespace, "--ignore-not-found", "--wait=true")
    kubectl("create", "namespace", kubectl.namespace)
    box = {"name": "main", "image": platform.images["operator"], "command": ["python3", "-c", LISTEN], "workingDir": "/tmp"}
    spec = {"containers": [box], "terminationGracePeriodSeconds": 0}
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger", "namespace": kubectl.namespace}, "spec": spec})
    kubectl("wait", "--for=condition=Ready", "pod/stranger", "--timeout=60s")
    yield kubectl
    kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture
def guarded(platform: Platform, namespace: Kubectl) -> Iterator[None]:
    """The chart with its policies, also in the namespace of the test's jobs; as ever afterwards."""
    install_chart(
        platform.kubectl, "networkPolicy.enabled=true", f"jobNamespaces={{{namespace.namespace}}}", "networkPolicy.jobs.egress=null"
    )
    yield
    install_chart(platform.kubectl)


def reach(kubectl: Kubectl, who: str, address: str, port: int) -> str:
    """What comes of a connection from a pod."""
    return kubectl("exec", who, "--", "python3", "-c", REACH, address, str(port)).split()[0]


def address_of(kubectl: Kubectl, selector: str) -> str:
    """Address of the first running pod."""
    pods = [pod for pod in kubectl.items("pods", selector) if pod["status"].get("phase") == "Running"]
    return str(pods[0]["status"]["podIP"])


@pytest.mark.usefixtures("guarded")
def test_a_job_needs_what_it_is_allowed_and_no_more(platform: Platform, run_job: JobFactory, namespace: Kubectl, stranger: Kubectl) -> None:
    """Two pods train, report, upload, pause, fetch and finish behind the policies; everything else is refused in both directions."""
    system = platform.kubectl.within(SYSTEM_NAMESPACE)
    with enforced(platform.kubectl):
        job = run_job("guarded", {"replicas": 2, "training": {"maxSteps": 3000}, "checkpoint": {"steps": 100}})
        job.wait_step(20)
        operator, store = (address_of(system, f"app.kubernetes.io/component={part}") for part in ("operator", "store"))
        rank, lonely = job.pod(0), str(stranger.get("pod", "stranger")["status"]["podIP"])  # type: ignore[index]
        first = next(pod["status"]["podIP"] for pod in job.pods() if pod["metadata"]["name"] == rank)
        for address, port in ((store, 9000), (operator, 8443), (first, MASTER_PORT)):
            assert reach(stranger, "stranger", address, port) == "refused", (address, port)
        for address, port in ((operator, 8080), (first, METRICS_PORT)):
            assert reach(stranger, "stranger", address, port) == "reached", "metrics are for everyone (networkPolicy.metricsFrom is empty)"
        assert reach(namespace, job.pod(1), first, MASTER_PORT) == "reached"
        assert reach(namespace, rank, store, 9000) == "reached"
        assert reach(namespace, rank, lonely, 8000) == "refused"
        assert reach(system, OPERATOR, lonely, 8000) == "refused"
        assert reach(system, OPERATOR, store, 9000) == "refused", "the operator never reads the store"
        job.scale(0)
        paused = job.wait_phase("Paused")
        assert paused["pause"]["saved"] is True
        namespace(
            "patch",
            "finetunejob",
            job.name,
            "--type=merge",
            "-p",
            f'{{"spec":{{"replicas":2,"training":{{"maxSteps":{paused["progress"]["step"] + 50}}}}}}}',
        )
        job.wait_phase("Succeeded")
    assert eventually(lambda: reach(stranger, "stranger", store, 9000) == "reached", within=30, what="everything is open again")

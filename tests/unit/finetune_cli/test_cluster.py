from collections.abc import Iterator
from typing import Any

import pytest
import stamina
import urllib3
from kubernetes.client import ApiClient, V1Node, V1NodeList, V1NodeStatus, V1ObjectMeta, V1PodList
from kubernetes.client.exceptions import ApiException

from finetune_cli.access import Access
from finetune_cli.cluster import Cluster, bounded
from finetune_cli.errors import CliError, JobGoneError
from finetune_cli.job import JobRef
from tests.unit.finetune_cli.builders import make_document, make_job

REF = JobRef("demo", "team")


class FakeApi:
    """Answers of the custom objects API, in order; an exception is raised."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.patches: list[Any] = []

    def get_namespaced_custom_object(self, *_: Any) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def list_cluster_custom_object(self, *_: Any) -> Any:
        return self.get_namespaced_custom_object()

    def list_namespaced_custom_object(self, *_: Any) -> Any:
        raise AssertionError("the fake watch does not call it")

    def patch_namespaced_custom_object(self, *arguments: Any) -> Any:
        self.patches.append(arguments[-1])
        return self.get_namespaced_custom_object()


class FakeWatch:
    """One batch of events for each watch; an exception ends it."""

    batches: list[list[Any]]

    def stream(self, *_: Any, **__: Any) -> Iterator[Any]:
        for event in self.batches.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    stamina.set_testing(True, attempts=3)
    yield
    stamina.set_testing(False)


def make_cluster(monkeypatch: pytest.MonkeyPatch, api: FakeApi, *batches: list[Any]) -> Cluster:
    FakeWatch.batches = list(batches)
    monkeypatch.setattr("kubernetes.watch.Watch", FakeWatch)
    cluster = Cluster(Access(), ApiClient())
    monkeypatch.setattr(cluster, "_custom", api)
    return cluster


def error(status: int, body: str = "") -> ApiException:
    failed = ApiException(status=status, reason="Reason")
    failed.body = body
    return failed


def test_follow_goes_on_after_expiry_and_outage_until_the_job_is_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that expires (410), a connection that breaks and a server that is away for a moment are no end."""
    api = FakeApi(
        make_document("Pending"), make_document("Training"), urllib3.exceptions.ProtocolError("gone"), error(503), make_document("Paused"),
    )  # fmt: skip
    changed = {"type": "MODIFIED", "object": make_document("Starting")}
    cluster = make_cluster(monkeypatch, api, [changed, error(410)], [urllib3.exceptions.ProtocolError("slow")], [{"type": "DELETED"}])
    jobs = cluster.follow(REF)
    seen = [next(jobs).phase.value for _ in range(4)]
    with pytest.raises(JobGoneError, match="finetunejob/demo in namespace team was deleted"):
        next(jobs)
    assert seen == ["Pending", "Starting", "Training", "Paused"]


def test_a_server_that_stays_away_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = make_cluster(monkeypatch, FakeApi(*[urllib3.exceptions.ProtocolError("refused")] * 3))
    with pytest.raises(CliError, match="reading finetunejob/demo in namespace team: the API server does not answer"):
        cluster.job(REF)


def test_the_catalogue_is_read_again_while_the_server_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """C-03."""
    cluster = make_cluster(monkeypatch, FakeApi(error(503), {"items": [{"metadata": {"name": "own"}}]}), [])
    assert cluster.base_models() == [{"metadata": {"name": "own"}}]
    with pytest.raises(CliError, match="listing the BaseModels of the cluster: not allowed"):
        make_cluster(monkeypatch, FakeApi(error(403))).base_models()


class FakeCore:
    """Nodes and pods of a cluster, or an exception."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def list_node(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def list_pod_for_all_namespaces(self) -> Any:
        return self.list_node()


def test_who_may_not_list_nodes_is_told_apart_from_an_empty_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """L-02: objects come as JSON has them."""
    cluster = make_cluster(monkeypatch, FakeApi())
    node = V1Node(metadata=V1ObjectMeta(name="a"), status=V1NodeStatus(allocatable={"nvidia.com/gpu": "8"}))
    monkeypatch.setattr(cluster, "_core", FakeCore(V1NodeList(items=[node]), V1PodList(items=[])))
    plain = {"metadata": {"name": "a"}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}
    assert cluster.nodes_and_pods() == ([plain], [])
    monkeypatch.setattr(cluster, "_core", FakeCore(error(403)))
    assert cluster.nodes_and_pods() is None
    monkeypatch.setattr(cluster, "_core", FakeCore(V1NodeList(items=[]), error(403)))
    assert cluster.nodes_and_pods() is None
    monkeypatch.setattr(cluster, "_core", FakeCore(error(500), error(500), error(500)))
    with pytest.raises(CliError, match="listing the nodes: the API server refused"):
        cluster.nodes_and_pods()


def test_refusals_come_out_as_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi(error(404), error(403), error(422, '{"message": "spec.replicas: 99 is above the maximum 64"}'))
    cluster = make_cluster(monkeypatch, api)
    with pytest.raises(JobGoneError, match="not found"):
        cluster.job(REF)
    with pytest.raises(CliError, match="not allowed"):
        cluster.job(REF)
    with pytest.raises(CliError, match=r"422 Reason: spec\.replicas: 99 is above the maximum 64"):
        cluster.patch(REF, {"spec": {"replicas": 99}})


def test_following_can_be_bounded_and_says_where_the_job_was() -> None:
    times = iter([0.0, 5.0, 11.0])
    jobs = bounded(iter([make_job("Queued"), make_job("Queued", reason="AwaitingPods")]), 10, "end of training", clock=lambda: next(times))
    assert [next(jobs).phase.value, next(jobs).phase.value] == ["Queued", "Queued"]
    with pytest.raises(CliError, match=r"no end of training within 10 s; phase Queued \(AwaitingPods\)"):
        next(jobs)


def test_kubectl_gets_the_same_access() -> None:
    assert Access("/k", "c").kubectl_flags() == ["--kubeconfig", "/k", "--context", "c"]
    assert Access().kubectl_flags() == []

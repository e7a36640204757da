"""The server of infer in a cluster: what its Job's pod is doing, and how it ended."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from kubernetes.client import ApiClient

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.termination import TerminationMessage
from finetune_cli.access import Access
from finetune_cli.cluster import Cluster
from finetune_cli.errors import CliError
from finetune_cli.job_runner import JobRunner
from finetune_cli.servers import ClusterServer, stop_servers
from finetune_cli.short_jobs import ShortJob


def ns(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(**fields)


def job(name: str = "serve-demo", condition: str | None = None, owner: str = "u-1") -> SimpleNamespace:
    conditions = [ns(type=condition, status="True", message="said so")] if condition else None
    metadata = ns(name=name, namespace="team", uid=f"uid-of-{name}", owner_references=[ns(uid=owner)])
    return ns(metadata=metadata, status=ns(conditions=conditions))


def pod(phase: str, *, left: str | None = None, reason: str = "Completed") -> SimpleNamespace:
    terminated = ns(message=left, reason=reason) if phase in {"Succeeded", "Failed"} else None
    status = ns(name="trainer", state=ns(waiting=None, terminated=terminated))
    unscheduled = [ns(type="PodScheduled", status="False", reason="Unschedulable", message="0/1 nodes have nvidia.com/gpu")]
    conditions = unscheduled if phase == "Pending" else None
    return ns(
        metadata=ns(name="serve-demo-x", creation_timestamp=1), status=ns(phase=phase, conditions=conditions, container_statuses=[status])
    )


class Api:
    """What the API server holds."""

    def __init__(self, *jobs: Any, pods: tuple[Any, ...] = ()) -> None:
        self.jobs, self.pods = list(jobs), list(pods)

    def list_namespaced_job(self, _: str, field_selector: str = "", label_selector: str = "") -> Any:
        assert field_selector or label_selector == "finetune.dev/component=serve"
        return ns(items=[each for each in self.jobs if not field_selector or field_selector == f"metadata.name={each.metadata.name}"])

    def list_namespaced_pod(self, *_: Any, **__: Any) -> Any:
        return ns(items=self.pods)

    def delete_namespaced_job(self, name: str, _: str, body: Any) -> None:
        self.jobs = [each for each in self.jobs if (each.metadata.name, each.metadata.uid) != (name, body.preconditions.uid)]


def runner_of(api: Api) -> JobRunner:
    runner = JobRunner(Cluster(Access(), ApiClient()))
    runner._batch = runner._core = api  # type: ignore[assignment]
    return runner


def server_of(api: Api) -> ClusterServer:
    manifest = {"metadata": {"name": "serve-demo", "namespace": "team"}}
    return ClusterServer(Cluster(Access(), ApiClient()), runner_of(api), ShortJob(manifest, manifest))


def message(failure: FailureClass | None) -> str:
    return TerminationMessage(contract_version=1, run=0, pod=0, exit_code=0, failure_class=failure, message="no GPU here").to_json()


@pytest.mark.parametrize(
    ("pods", "said"),
    [
        ((), "job/serve-demo: its pod is not there yet"),
        ((pod("Pending"),), "serve-demo-x: Unschedulable: 0/1 nodes have nvidia.com/gpu"),
        ((pod("Running"),), ""),
    ],
)
def test_why_it_cannot_be_asked_yet(pods: tuple[Any, ...], said: str) -> None:
    """V-07: a pod that waits for a node says so."""
    assert server_of(Api(job(), pods=pods)).waits_for() == said


@pytest.mark.parametrize(
    ("api", "said", "advice"),
    [
        (Api(), "was deleted", ""),
        (Api(job(condition="Complete"), pods=(pod("Succeeded", left=message(None)),)), "has ended", "starts it again"),
        (Api(job(condition="Failed"), pods=(pod("Failed", left=message(FailureClass.CONFIGURATION)),)), "no GPU here", ""),
        (Api(job(condition="Failed"), pods=(pod("Failed", reason="OOMKilled"),)), "ran out of memory", "--gpu"),
        (Api(job(condition="Failed"), pods=(pod("Failed", left="error: invalid choice: 'serve'"),)), "invalid choice", "--image"),
    ],
)
def test_how_it_ended(api: Api, said: str, advice: str) -> None:
    """V-07: idle, refused, without memory, of an image that knows no such verb."""
    with pytest.raises(CliError, match=said) as caught:
        server_of(api).waits_for()
    assert advice in caught.value.advice


def test_the_servers_of_a_job_are_ended_and_no_others() -> None:
    """V-07: by their owner, not by a name that another job may have had."""
    api = Api(job("serve-demo-1"), job("serve-demo-2"), job("serve-other", owner="u-2"))
    assert stop_servers(runner_of(api), "u-1", "team") == ["serve-demo-1", "serve-demo-2"]
    assert [each.metadata.name for each in api.jobs] == ["serve-other"]

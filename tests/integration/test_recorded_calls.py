"""The in-memory API server answers as the real one does: lives of a job, recorded on the one, replayed on the other (issue 4)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from finetune_operator.cluster.client import KubernetesTransport
from tests.support.operator_cluster import JOBS_PATH, NAMESPACE, FakeCluster
from tests.support.platform import Kubectl
from tests.support.recorded import Recording, Replay, Step
from tests.unit.finetune_operator.test_crash import SCENARIOS
from tests.unit.finetune_operator.test_faults import SecondLeader, tolerant
from tests.unit.support.test_fake_api import DEEDS

SECOND_LEADER_AT = (2, 4, 6, 9)
"""At which write of the first leader another one acts: what the first one sends then is stale."""


@pytest.fixture
async def transport(kubeconfig: object, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[KubernetesTransport]:
    """The operator's own connection to the real API server."""
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    made = await KubernetesTransport.connect()
    yield made
    await made.close()


async def recorded(scenario: str, at: int) -> list[Step]:
    """A life of a job with a second leader for a moment, on the in-memory server."""
    cluster = FakeCluster(name=f"{scenario.replace('_', '-')}-{at}"[:50])
    recording = Recording(cluster)
    cluster.api = SecondLeader(cluster, at).install()
    cluster.reconcile = tolerant(cluster)  # type: ignore[method-assign]
    await SCENARIOS[scenario](cluster)
    await cluster.settle(rounds=200, advance=True)
    return recording.steps


@pytest.mark.parametrize("scenario", ["pause_resume_finish", "gpu_with_preflight_cancelled", "applied_from_git_and_by_hand"])
async def test_recorded_calls_have_the_same_answers(unattended: Kubectl, transport: KubernetesTransport, scenario: str) -> None:
    """Every write of operator, user and trainer, and every read of what they write: the same code and reason on both."""
    codes: set[int] = set()
    for at in SECOND_LEADER_AT:
        told = await Replay(transport, unattended.namespace).run(await recorded(scenario, at))
        assert [got for _, got in told] == [expected for expected, _ in told]
        codes |= {int(expected.split(": ")[1][:3]) for expected, _ in told}
    assert {200, 201, 409} <= codes, "the recordings have refusals too"


@pytest.mark.parametrize("deeds", DEEDS)
async def test_server_side_apply_is_the_same(
    unattended: Kubectl, transport: KubernetesTransport, deeds: Callable[[FakeCluster], None]
) -> None:
    """Code and reason, causes and message of conflicts, the spec that comes of it and who manages what of it."""
    cluster = FakeCluster(name=deeds.__name__.replace("_", "-"))
    recording = Recording(cluster)
    deeds(cluster)
    told = await Replay(transport, unattended.namespace).run(recording.steps)
    assert [got for _, got in told] == [expected for expected, _ in told]


def events_of(lines: Iterable[dict[str, Any]]) -> list[tuple[str, Any]]:
    """Type of each event of a watch, and what it shows: replicas and whether it is being deleted, or code and reason."""
    shown: list[tuple[str, Any]] = []
    for line in lines:
        kind, manifest = line["type"], line["object"]
        if kind == "ERROR":
            shown.append((kind, (manifest["code"], manifest["reason"])))
        elif kind != "BOOKMARK":
            shown.append((kind, (manifest["spec"]["replicas"], "deletionTimestamp" in manifest["metadata"])))
    return shown


async def test_watches_say_the_same(unattended: Kubectl, transport: KubernetesTransport) -> None:
    """What happens to a job between two versions, and 410 Expired for a version that is too old."""
    cluster = FakeCluster(name="watched")
    start = cluster.api.send("GET", JOBS_PATH).body["metadata"]["resourceVersion"]
    recording = Recording(cluster)
    cluster.apply({})
    cluster.scale(0)
    cluster.scale(0)
    cluster.edit({"replicas": 2})
    cluster.api.send("DELETE", f"{JOBS_PATH}/watched")
    path = JOBS_PATH.replace(f"/namespaces/{NAMESPACE}", f"/namespaces/{unattended.namespace}")
    begun = json.loads(unattended("get", "--raw", path))["metadata"]["resourceVersion"]
    await Replay(transport, unattended.namespace).run(recording.steps)

    def here(version: str) -> list[tuple[str, Any]]:
        return events_of(cluster.api.send("GET", JOBS_PATH, watch="true", resourceVersion=version).body["events"])

    def there(version: str) -> list[tuple[str, Any]]:
        stream = unattended("get", "--raw", f"{path}?watch=true&timeoutSeconds=3&resourceVersion={version}")
        return events_of(map(json.loads, stream.splitlines()))

    assert [kind for kind, _ in here(start)] == ["ADDED", "MODIFIED", "MODIFIED", "DELETED"]
    assert there(begun) == here(start)
    cluster.api.forget_the_past()
    assert there("1") == here("1") == [("ERROR", (410, "Expired"))]

"""The operator's client against a real API server, and the fake one held to the same answers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from finetune_api.constants import API_VERSION, KIND
from finetune_operator.clocks import Clocks
from finetune_operator.cluster.client import Client, KubernetesTransport
from finetune_operator.cluster.errors import ApiError
from finetune_operator.cluster.lease import LeaseLock, LeaseSettings
from finetune_operator.cluster.namesakes import older_namesake
from finetune_operator.cluster.resources import CONFIG_MAPS, FINETUNE_JOBS, JOBS, TOKEN_REVIEWS, Resource
from finetune_operator.plan.observed import JobObject
from tests.support.fake_api import FakeApi

NAMESPACES = Resource("", "v1", "namespaces", "Namespace")


@pytest.fixture
async def real(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Client, str]]:
    """A client of the real API server and a namespace of the test's own."""
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    transport = await KubernetesTransport.connect()
    client = Client(transport)
    name = f"operator-api-{uuid.uuid4().hex[:8]}"
    created = await client.create(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    try:
        yield client, name
    finally:
        await transport.request(
            "DELETE",
            NAMESPACES.path(None, name),
            query={},
            body={"preconditions": {"uid": created["metadata"]["uid"]}},
            content_type="application/json",
        )
        await transport.close()


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"suite": "x"}}, "data": {"k": "v"}}


def suspended_job(name: str) -> dict[str, Any]:
    container = {"name": "c", "image": "none.invalid/none"}
    template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
    metadata = {"name": name, "labels": {"suite": "x"}}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {"suspend": True, "template": template}}


async def outcome(call: Any) -> str:
    """What a call came to, in a word that does not depend on uids."""
    try:
        answer = await call
    except ApiError as error:
        return type(error).__name__
    return "nothing" if answer is None else str(answer) if isinstance(answer, bool) else "done"


async def play(client: Client, namespace: str) -> list[str]:
    """The calls the operator makes, good and stale ones."""
    told = [await outcome(client.get(CONFIG_MAPS, namespace, "a"))]
    told.append(await outcome(client.create(CONFIG_MAPS, namespace, config_map("a"))))
    told.append(await outcome(client.create(CONFIG_MAPS, namespace, config_map("a"))))
    told.append(await outcome(client.create_once(CONFIG_MAPS, namespace, config_map("a"))))
    found = await client.get(CONFIG_MAPS, namespace, "a")
    assert found is not None
    uid, version = found["metadata"]["uid"], found["metadata"]["resourceVersion"]
    stale = ({"uid": str(uuid.uuid4())}, {"uid": uid, "resourceVersion": version}, {"uid": uid, "resourceVersion": version})
    patches = [{"metadata": metadata, "data": {"k": version}} for metadata in stale]
    told += [await outcome(client.patch(CONFIG_MAPS, namespace, "a", patch)) for patch in patches]
    told.append(await outcome(client.patch(CONFIG_MAPS, namespace, "none", {"data": {"k": "v"}})))
    told.append(str(len(await client.list(CONFIG_MAPS, namespace, "suite=x"))))
    told.append(str(len(await client.list(CONFIG_MAPS, namespace, "suite=y"))))
    told.append(await outcome(client.delete(CONFIG_MAPS, namespace, "a", uid=str(uuid.uuid4()))))
    told.append(await outcome(client.delete(CONFIG_MAPS, namespace, "a", uid=uid)))
    told.append(await outcome(client.delete(CONFIG_MAPS, namespace, "a", uid=uid)))
    told.append(await outcome(client.create(JOBS, namespace, suspended_job("j"))))
    job = await client.get(JOBS, namespace, "j")
    assert job is not None
    told.append(await outcome(client.delete(JOBS, namespace, "j", uid=str(uuid.uuid4()), propagation="Foreground")))
    told.append(await outcome(client.delete(JOBS, namespace, "j", uid=job["metadata"]["uid"], propagation="Foreground")))
    return told


async def test_the_fake_answers_as_the_real_one(real: tuple[Client, str]) -> None:
    """Trial 32: the same calls give the same answers on both; uid and version preconditions, absence, taken names."""
    client, namespace = real
    expected = await play(Client(FakeApi()), "default")
    assert await play(client, namespace) == expected
    assert expected.count("ConflictError") == 4


async def test_a_lease_on_a_real_api_server(real: tuple[Client, str]) -> None:
    """Design §4, HA: one leads, a released lease is taken at once."""
    client, namespace = real
    clocks = Clocks(lambda: datetime.now(UTC), time.monotonic)

    def lock(identity: str) -> LeaseLock:
        settings = LeaseSettings(namespace=namespace, name="op", identity=identity, lease_seconds=15, renew_deadline_seconds=10)
        return LeaseLock(client, settings, clocks)

    one, two = lock("one"), lock("two")
    await one.attempt()
    await two.attempt()
    assert (one.is_leader(), two.is_leader()) == (True, False)
    await one.release()
    await asyncio.gather(two.attempt())
    assert two.is_leader()


async def test_a_token_the_api_server_did_not_issue_is_not_authenticated(real: tuple[Client, str]) -> None:
    """Design §4: TokenReview with our audience."""
    client, _ = real
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": "a.b.c", "audiences": ["finetune-operator"]},
    }
    assert not (await client.create(TOKEN_REVIEWS, None, review))["status"].get("authenticated")


async def test_older_namesakes_are_found_by_the_field(real: tuple[Client, str]) -> None:
    """J-02: whatever signs a displayName has; of two of one second the first by name is the older one."""
    client, namespace = real
    shown = 'Orders, v2 = "final" \\ 100 % grün; a&b'
    for name, called in (("a", shown), ("b", shown), ("c", "Orders"), ("d", None)):
        spec = {"model": {"uri": "s3://m/m"}, "dataset": {"uri": "configmap://rows/rows.jsonl"}, "suspend": True}
        spec |= {"displayName": called} if called is not None else {}
        manifest = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}
        await client.create(FINETUNE_JOBS, namespace, manifest)
    jobs = [JobObject.from_manifest(found) for name in "abcd" if (found := await client.get(FINETUNE_JOBS, namespace, name)) is not None]
    assert [await older_namesake(client, FINETUNE_JOBS, job) for job in jobs] == [None, "a", None, None]

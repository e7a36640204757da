from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from finetune_operator.cluster.client import Answer, Client, proxy_of
from finetune_operator.cluster.errors import (
    AlreadyExistsError,
    ApiError,
    ConflictError,
    ForbiddenError,
    InvalidError,
    NamespaceTerminatingError,
    NotFoundError,
    NotLeaderError,
    OverloadedError,
    UnauthorizedError,
    UnreachableError,
    error_of,
)
from finetune_operator.cluster.resources import CONFIG_MAPS, FINETUNE_JOBS, JOBS, PODS, TOKEN_REVIEWS
from tests.support.fake_api import FakeApi

TERMINATING = {"details": {"causes": [{"reason": "NamespaceTerminating"}]}}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {}, InvalidError),
        (401, {}, UnauthorizedError),
        (403, {}, ForbiddenError),
        (403, TERMINATING, NamespaceTerminatingError),
        (404, {}, NotFoundError),
        (409, {"reason": "Conflict"}, ConflictError),
        (409, {"reason": "AlreadyExists"}, AlreadyExistsError),
        (422, {}, InvalidError),
        (422, {"details": {"causes": [{"reason": "FieldValueInvalid", "field": "metadata.uid"}]}}, ConflictError),
        (429, {}, OverloadedError),
        (500, {}, UnreachableError),
        (503, {}, UnreachableError),
        (418, {}, ApiError),
    ],
)
def test_errors_are_told_apart_once(status: int, body: dict[str, Any], expected: type[ApiError]) -> None:
    assert type(error_of(status, body, {})) is expected


def test_an_overloaded_server_says_when_to_come_back() -> None:
    error = error_of(429, {}, {"Retry-After": "7"})
    assert isinstance(error, OverloadedError)
    assert error.retry_after == 7
    assert error_of(429, {}, {}).__dict__["retry_after"] == 1


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (CONFIG_MAPS.path("ns", "a"), "/api/v1/namespaces/ns/configmaps/a"),
        (JOBS.path("ns"), "/apis/batch/v1/namespaces/ns/jobs"),
        (FINETUNE_JOBS.path("ns", "a", "status"), "/apis/finetune.dev/v1alpha1/namespaces/ns/finetunejobs/a/status"),
        (TOKEN_REVIEWS.path(None), "/apis/authentication.k8s.io/v1/tokenreviews"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    assert path == expected


def config_map(name: str = "a") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"team": "x"}}, "data": {"k": "v"}}


async def test_create_once_returns_what_was_there() -> None:
    client = Client(FakeApi())
    assert await client.create_once(CONFIG_MAPS, "default", config_map()) is None
    found = await client.create_once(CONFIG_MAPS, "default", config_map())
    assert found is not None
    assert found["metadata"]["uid"] == "uid-1"


async def test_absence_is_an_answer_not_an_error() -> None:
    client = Client(FakeApi())
    assert await client.get(CONFIG_MAPS, "default", "none") is None
    assert await client.delete(CONFIG_MAPS, "default", "none", uid="x") is False
    assert await client.list(CONFIG_MAPS, "default", "team=x") == []


async def test_only_the_object_seen_is_deleted() -> None:
    """Design §4: deletions carry the uid."""
    api = FakeApi()
    client = Client(api)
    await client.create(CONFIG_MAPS, "default", config_map())
    with pytest.raises(ConflictError):
        await client.delete(CONFIG_MAPS, "default", "a", uid="another")
    assert await client.delete(CONFIG_MAPS, "default", "a", uid="uid-1") is True
    assert api.find("configmaps") == []


async def test_a_patch_with_a_stale_version_or_another_uid_is_refused() -> None:
    client = Client(FakeApi())
    await client.create(CONFIG_MAPS, "default", config_map())
    for precondition in ({"uid": "another"}, {"resourceVersion": "999"}):
        with pytest.raises(ConflictError):
            await client.patch(CONFIG_MAPS, "default", "a", {"metadata": precondition, "data": {"k": "w"}})


async def test_a_fence_stands_before_every_write_and_no_read() -> None:
    """A replica that lost the lead writes nothing."""
    api = FakeApi()

    def fence() -> None:
        raise NotLeaderError("another leads")

    fenced = Client(api).fenced(fence)
    assert await fenced.get(CONFIG_MAPS, "default", "a") is None
    writes = [
        fenced.create(CONFIG_MAPS, "default", config_map()),
        fenced.patch(CONFIG_MAPS, "default", "a", {}),
        fenced.patch_status(FINETUNE_JOBS, "default", "a", {}),
        fenced.replace(CONFIG_MAPS, "default", "a", config_map()),
        fenced.delete(CONFIG_MAPS, "default", "a", uid="u"),
    ]
    for write in writes:
        with pytest.raises(NotLeaderError):
            await write
    assert not [call for call in api.calls if call.is_write]


async def test_requests_are_counted_also_when_they_fail() -> None:
    """As the rules of RBAC name them."""
    seen: list[tuple[str, str, int]] = []

    class Broken:
        async def request(self, method: str, path: str, *, query: Mapping[str, str], body: Any, content_type: str) -> Answer:
            raise UnreachableError(0, "ClientError", "reset")

    client = Client(FakeApi(), observer=lambda *call: seen.append(call))
    await client.get(CONFIG_MAPS, "default", "none")
    with pytest.raises(UnreachableError):
        await Client(Broken(), observer=lambda *call: seen.append(call)).get(JOBS, "default", "x")
    await client.list(PODS, "default")
    with pytest.raises(NotFoundError):
        await client.patch_status(FINETUNE_JOBS, "default", "none", {})
    assert seen == [("get", "configmaps", 404), ("get", "jobs", 0), ("list", "pods", 200), ("patch", "finetunejobs/status", 404)]


@pytest.mark.parametrize(
    ("environment", "url", "expected"),
    [
        ({}, "https://10.96.0.1:443", None),
        ({"https_proxy": "http://proxy:3128"}, "https://10.96.0.1:443", "http://proxy:3128"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "https://api.example.com:6443", "http://proxy:3128"),
        ({"http_proxy": "http://proxy:3128"}, "https://10.96.0.1:443", None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "10.96.0.1"}, "https://10.96.0.1:443", None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": ".example.com"}, "https://api.example.com:6443", None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": "*"}, "https://10.96.0.1:443", None),
    ],
)
def test_the_environments_proxy(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], url: str, expected: str | None) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_of(url) == expected

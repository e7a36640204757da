from __future__ import annotations

import base64
import time
from pathlib import Path

import pytest

from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import ConflictError
from finetune_operator.progress.certificates import renewed
from finetune_operator.progress.tls import FRESH_SECONDS, CaPublisher, TlsKeeper, TlsSettings
from tests.support.fake_api import Call, FakeApi, unreachable

NAMES = ("localhost",)


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    api.add("secrets", {"kind": "Secret", "metadata": {"name": "tls", "namespace": "finetune"}})
    return api


def keeper(api: FakeApi, directory: Path, *, leads: bool = True) -> TlsKeeper:
    settings = TlsSettings(namespace="finetune", secret="tls", names=NAMES, directory=directory)
    return TlsKeeper(Client(api), settings, may_write=lambda: leads, now=api.clock.now)


async def test_the_leader_fills_the_empty_secret_and_followers_serve_it(api: FakeApi, tmp_path: Path) -> None:
    """Design §4: the chart creates one empty Secret."""
    follower = keeper(api, tmp_path, leads=False)
    await follower.look()
    before = follower.loaded
    leader = keeper(api, tmp_path)
    await leader.look()
    await follower.look()
    assert (before, leader.loaded, follower.loaded) == (False, True, True)
    assert leader.ca == follower.ca


async def test_nothing_is_written_while_nothing_is_due(api: FakeApi, tmp_path: Path) -> None:
    await keeper(api, tmp_path).look()
    writes = sum(call.is_write for call in api.calls)
    again = keeper(api, tmp_path)
    await again.look()
    assert again.loaded
    assert sum(call.is_write for call in api.calls) == writes


async def test_the_key_is_for_nobody_else(api: FakeApi, tmp_path: Path) -> None:
    await keeper(api, tmp_path).look()
    assert (tmp_path / "tls.key").stat().st_mode & 0o077 == 0


async def test_a_certificate_of_somebody_else_is_only_read(api: FakeApi, tmp_path: Path) -> None:
    """tls.source external: cert-manager fills the Secret; without ca.crt the certificate itself is what is trusted."""
    made = renewed(None, NAMES, api.clock.now())
    data = {"tls.crt": made.certificate, "tls.key": made.key}
    api.change("secrets", "finetune", "tls", {"data": {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}})
    external = keeper(api, tmp_path, leads=False)
    await external.look()
    assert external.ca == made.certificate
    assert not [call for call in api.calls if call.is_write]


async def test_a_write_of_another_replica_comes_first(api: FakeApi, tmp_path: Path) -> None:
    """The patch carries the version that was read."""

    def race(call: Call, moment: str) -> None:
        if call.method == "PATCH" and moment == "before":
            api.fault = None
            api.change("secrets", "finetune", "tls", {"metadata": {"labels": {"x": "y"}}})

    api.fault = race
    loser = keeper(api, tmp_path)
    with pytest.raises(ConflictError):
        await loser.look()
    before = loser.loaded
    await loser.look()
    assert (before, loser.loaded) == (False, True)


async def test_a_missing_secret_is_no_crash(tmp_path: Path) -> None:
    absent = keeper(FakeApi(), tmp_path)
    await absent.look()
    assert not absent.loaded


async def test_a_namespace_made_again_gets_the_ca_again(api: FakeApi) -> None:
    now = [0.0]
    publisher = CaPublisher(Client(api), lambda: "CA 1", clock=lambda: now[0])
    await publisher.publish("team-a")
    api.objects.clear()
    now[0] += FRESH_SECONDS + 1
    await publisher.publish("team-a")
    found = api.get("configmaps", "finetune-ca", "team-a")
    assert found is not None
    assert found["data"] == {"ca.crt": "CA 1"}


async def test_a_wave_of_runs_asks_about_their_namespace_once(api: FakeApi) -> None:
    publisher = CaPublisher(Client(api), lambda: "CA 1", clock=lambda: 0.0)
    for _ in range(100):
        await publisher.publish("team-a")
        await publisher.keep("team-a")
    assert len(api.calls) == 1


async def test_a_new_ca_reaches_every_namespace(api: FakeApi) -> None:
    ca = ["CA 1"]
    publisher = CaPublisher(Client(api), lambda: ca[0], clock=time.monotonic)
    for namespace in ("team-a", "team-b"):
        await publisher.publish(namespace)
    ca[0] = "CA 2 and CA 1"
    await publisher.publish_again()
    assert {m["data"]["ca.crt"] for _, m in api.objects.items() if m["metadata"]["name"] == "finetune-ca"} == {"CA 2 and CA 1"}


async def test_a_namespace_of_another_process_s_run_is_asked_about_once(api: FakeApi) -> None:
    """Each look at a running job calls it; while there is no CA yet, or the API server does not answer, the next look tries again."""
    ca: list[str | None] = [None]
    publisher = CaPublisher(Client(api), lambda: ca[0], clock=time.monotonic)
    await publisher.keep("team-a")
    assert not list(publisher.namespaces)

    def cut(_call: Call, _moment: str) -> None:
        raise unreachable()

    ca[0], api.fault = "CA 1", cut
    await publisher.keep("team-a")
    assert not list(publisher.namespaces)
    api.fault = None
    for _ in range(3):
        await publisher.keep("team-a")
    assert list(publisher.namespaces) == ["team-a"]
    assert len([call for call in api.calls if call.is_write]) == 2, "one that failed, one that did it"


async def test_an_administrator_s_own_ca_is_left_alone(api: FakeApi) -> None:
    """trust-manager, or by hand: no label of ours."""
    api.add("configmaps", {"kind": "ConfigMap", "metadata": {"name": "finetune-ca", "namespace": "team-a"}, "data": {"ca.crt": "theirs"}})
    await CaPublisher(Client(api), lambda: "ours", clock=time.monotonic).publish("team-a")
    found = api.get("configmaps", "finetune-ca", "team-a")
    assert found is not None
    assert found["data"] == {"ca.crt": "theirs"}


async def test_without_a_ca_nothing_is_published(api: FakeApi) -> None:
    """Pods start all the same: the mount is optional."""
    await CaPublisher(Client(api), lambda: None, clock=time.monotonic).publish("team-a")
    assert api.calls == []

"""The endpoint over real TLS on localhost: the certificate is the keeper's, tokens are checked, replies carry commands."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from finetune_api.contract.progress import progress_path
from finetune_operator.clocks import Clocks
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import JobFeed, JobLookup
from finetune_operator.progress.bucket import TokenBucket
from finetune_operator.progress.server import MAX_BODY_BYTES, REFUSALS_AT_ONCE, ProgressEndpoint
from finetune_operator.progress.tls import TlsKeeper, TlsSettings
from finetune_operator.progress.tokens import PosterLookup, TokenReviewAuthenticator
from finetune_operator.progress.writer import ProgressWriter
from tests.support.fake_api import Call, Clock, unreachable
from tests.support.operator_cluster import NAMESPACE
from tests.support.operator_tokens import VouchingApi

KEY = JobKey(NAMESPACE, "demo")
ASK = {"commandId": "pause-1-2", "action": "pause", "requestedAt": "2026-11-21T08:00:00Z"}


class Endpoint:
    """A served endpoint, its world and a client that trusts it."""

    def __init__(self, directory: Path) -> None:
        self.api = VouchingApi()
        self.api.add("secrets", {"kind": "Secret", "metadata": {"name": "tls", "namespace": "finetune"}})
        self.token = self.api.populate()
        self.api.change("finetunejobs", NAMESPACE, "demo", {"status": {"run": 1}})
        client = Client(self.api)
        clocks = Clocks(self.api.clock.now, self.api.clock.monotonic)
        self.marked: list[JobKey] = []
        self.feed = JobFeed(lambda key, _delay: self.marked.append(key), lambda _key: None)
        self.answers: list[int] = []
        self.writer = ProgressWriter(
            client, TokenBucket(20, clock=clocks.monotonic), clocks, min_seconds=5, on_urgent=lambda key, _news: self.marked.append(key)
        )
        posters = PosterLookup(client, TokenReviewAuthenticator(client), now=lambda: self.api.clock.now().timestamp())
        endpoint = ProgressEndpoint(
            JobLookup(self.feed, client), posters, self.writer, clocks, on_post=lambda code, _seconds: self.answers.append(code)
        )
        self.app = endpoint.build_app()
        settings = TlsSettings(namespace="finetune", secret="tls", names=("localhost",), directory=directory)
        self.tls_clock = Clock(datetime.now(UTC) - timedelta(days=61))
        """The client judges the certificate by the real time: it was made 61 days ago."""
        self.tls = TlsKeeper(client, settings, may_write=lambda: True, now=self.tls_clock.now)
        self.port = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Endpoint]:
        await self.tls.look()
        runner = web.AppRunner(self.app)
        await runner.setup()
        site = web.TCPSite(runner, "localhost", 0, ssl_context=self.tls.context)
        await site.start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()

    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.tls.ca)

    async def post(
        self, body: Any, *, token: str | None = None, name: str = "demo", headers: dict[str, str] | None = None
    ) -> tuple[int, str]:
        url = f"https://localhost:{self.port}{progress_path(NAMESPACE, name)}"
        data = body if isinstance(body, str) else json.dumps(body)
        sent = headers if headers is not None else {"Authorization": f"Bearer {token or self.token}"}
        async with aiohttp.ClientSession() as session, session.post(url, data=data, headers=sent, ssl=self.trust()) as response:
            return response.status, await response.text()

    def status(self) -> dict[str, Any]:
        found = self.api.get("finetunejobs", "demo")
        assert found is not None
        return found.get("status") or {}

    def watch(self) -> None:
        """The watch tells of the job as it is."""
        found = self.api.get("finetunejobs", "demo")
        assert found is not None
        self.feed.job_event("MODIFIED", found)


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[Endpoint]:
    async with Endpoint(tmp_path).serving() as served:
        yield served


def report(**ours: Any) -> dict[str, Any]:
    stock = {"lastUpdatedTime": "2026-11-21T08:00:00Z"}
    return {"trainerStatus": stock, "finetune": {"contractVersion": 1, "run": 1, "attempt": 1, "phase": "Training", **ours}}


async def test_a_post_is_stored_and_answered(endpoint: Endpoint) -> None:
    """The first post of an attempt is written through."""
    assert await endpoint.post(report(step=5, totalSteps=100)) == (200, '{"contractVersion":1,"commands":[]}')
    assert (endpoint.status()["progress"]["step"], endpoint.marked, endpoint.answers) == (5, [KEY], [200])


async def test_the_reply_carries_the_open_ask(endpoint: Endpoint) -> None:
    """Design §4: the ask is in the status; any replica answers right."""
    endpoint.api.change("finetunejobs", NAMESPACE, "demo", {"status": {"pause": ASK}})
    endpoint.watch()
    _, body = await endpoint.post(report())
    assert json.loads(body)["commands"] == [{"id": "pause-1-2", "action": "pause", "timeoutSeconds": 600, "ifUnsaved": "Wait"}]


async def test_stopped_is_in_the_status_when_the_answer_comes(endpoint: Endpoint) -> None:
    """The contract: a 200 to a post with stopped means that it is stored."""
    stopped = {"commandId": "pause-1-2", "step": 9, "saved": True}
    assert (await endpoint.post(report(phase="Holding", stopped=stopped)))[0] == 200
    assert json.loads(endpoint.status()["progress"]["report"])["stopped"] == stopped


async def test_an_urgent_post_that_cannot_be_stored_is_not_accepted(endpoint: Endpoint) -> None:
    assert (await endpoint.post(report()))[0] == 200

    def away(call: Call, _moment: str) -> None:
        if call.is_write:
            raise unreachable()

    endpoint.api.fault = away
    assert (await endpoint.post(report(stopped={"commandId": "x", "step": 9, "saved": True})))[0] == 503
    assert (await endpoint.post(report(step=6)))[0] == 200


@pytest.mark.parametrize(("run", "attempt", "expected"), [(1, 1, 409), (1, 2, 200), (1, 0, 200), (1, 3, 200), (2, 0, 200)])
async def test_a_replaced_attempt_is_told_to_stop(endpoint: Endpoint, run: int, attempt: int, expected: int) -> None:
    """409 for a lower attempt; 0 has claimed none yet (a group that starts anew inside the run)."""
    await endpoint.post(report(attempt=2))
    assert (await endpoint.post(report(run=run, attempt=attempt)))[0] == expected


async def test_an_earlier_run_is_told_to_stop(endpoint: Endpoint) -> None:
    await endpoint.post(report(run=2, attempt=3))
    assert (await endpoint.post(report(run=1, attempt=9)))[0] == 409


async def test_another_replica_s_attempt_counts_as_well(endpoint: Endpoint) -> None:
    endpoint.api.change("finetunejobs", NAMESPACE, "demo", {"status": {"progress": {"run": 1, "attempt": 5}}})
    endpoint.watch()
    assert (await endpoint.post(report(attempt=4)))[0] == 409


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer nonsense"}])
async def test_without_a_good_token_nothing_is_said(endpoint: Endpoint, headers: dict[str, str]) -> None:
    status, body = await endpoint.post(report(), headers=headers)
    assert status == 401
    assert "commands" not in body


async def test_a_pod_speaks_for_its_own_job_only(endpoint: Endpoint) -> None:
    other = endpoint.api.populate("other")
    assert (await endpoint.post(report(), token=other))[0] == 403
    assert (await endpoint.post(report(), token=other, name="other"))[0] == 200


async def test_a_job_that_is_gone_or_made_anew_is_404(endpoint: Endpoint) -> None:
    manifest = endpoint.api.objects.pop(("finetunejobs", NAMESPACE, "demo"))
    assert (await endpoint.post(report()))[0] == 404
    endpoint.api.add("finetunejobs", {**manifest, "metadata": {"name": "demo", "namespace": NAMESPACE}})
    assert (await endpoint.post(report()))[0] == 404


@pytest.mark.parametrize(
    ("body", "expected"),
    [("", 422), ("[]", 422), ("{}", 422), ('{"trainerStatus":{},"finetune":null}', 422), ("x" * (MAX_BODY_BYTES + 1), 413)],
)
async def test_what_cannot_be_read_is_refused(endpoint: Endpoint, body: str, expected: int) -> None:
    assert (await endpoint.post(body))[0] == expected


async def test_a_stock_client_is_understood(endpoint: Endpoint) -> None:
    """Kubeflow's callback: trainerStatus alone, the reply is ignored."""
    stock = {"lastUpdatedTime": "2026-11-21T08:00:00Z", "progressPercentage": 40, "metrics": [{"name": "loss", "value": "0.5"}]}
    assert (await endpoint.post({"trainerStatus": stock}))[0] == 200
    await endpoint.writer.flush_one()
    assert (endpoint.status()["progress"]["percent"], endpoint.status()["progress"]["loss"]) == (40, 0.5)


async def test_a_stock_client_of_an_earlier_run_is_told_to_stop(endpoint: Endpoint) -> None:
    """It names no run: its pod's owner does. A lost pod that comes back must not write over the next run's numbers."""
    endpoint.api.change("finetunejobs", NAMESPACE, "demo", {"status": {"run": 2, "progress": {"run": 2, "percent": 7}}})
    endpoint.watch()
    stock = {"lastUpdatedTime": "2026-11-21T08:00:00Z", "progressPercentage": 40}
    assert (await endpoint.post({"trainerStatus": stock}))[0] == 409
    assert endpoint.status()["progress"]["percent"] == 7


async def test_an_address_with_many_bad_tokens_is_not_listened_to_for_a_while(endpoint: Endpoint) -> None:
    """Each bad token may cost the API server a request."""
    codes = [(await endpoint.post(report(), token="nonsense"))[0] for _ in range(int(REFUSALS_AT_ONCE) + 3)]
    assert codes == [401] * int(REFUSALS_AT_ONCE) + [429] * 3
    assert (await endpoint.post(report()))[0] == 429
    endpoint.api.clock.advance(30)
    assert (await endpoint.post(report()))[0] == 200


async def test_a_renewed_certificate_is_served_without_a_restart(endpoint: Endpoint) -> None:
    """Hot reload: new connections get the new leaf; the old bundle still trusts it."""
    trusted = endpoint.trust()

    async def serial() -> str:
        _, writer = await asyncio.open_connection("localhost", endpoint.port, ssl=trusted)
        certificate = writer.get_extra_info("ssl_object").getpeercert()
        writer.close()
        return str(certificate["serialNumber"])

    before = await serial()
    endpoint.tls_clock.advance(61 * 86400)
    await endpoint.tls.look()
    assert await serial() != before

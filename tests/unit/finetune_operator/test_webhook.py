"""The webhook against a real HTTP server (AB-05)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from finetune_operator.cluster.client import Client
from finetune_operator.cluster.events import EventWriter
from finetune_operator.plan.decision import Event
from finetune_operator.webhook import MAX_WAITING, Webhook, WebhookSettings
from tests.support.fake_api import FakeApi
from tests.support.operator_values import make_job

FAILED = Event(reason="Failed", message="CudaOutOfMemory: 80 GiB", type="Warning", key="1")


@dataclass
class Receiver:
    """Answers with the codes it is given, then 200."""

    codes: list[int] = field(default_factory=list)
    requests: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    url: str = ""

    async def receive(self, request: web.Request) -> web.Response:
        self.requests.append((dict(request.headers), await request.json()))
        return web.Response(status=self.codes.pop(0) if self.codes else 200)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.receive)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"{site.name}/hook"
    yield receiver
    await runner.cleanup()


@asynccontextmanager
async def running(url: str, outcomes: asyncio.Queue[str], *, patience: float = 20, token: str | None = None) -> AsyncIterator[EventWriter]:
    """An event writer whose events a webhook hears of, as in the operator."""
    settings = WebhookSettings(url=url, token=token, reasons=frozenset({"Failed", "Paused"}), patience_seconds=patience)
    webhook = Webhook(settings, on_outcome=outcomes.put_nowait, dashboard=lambda namespace, name: f"https://grafana/{namespace}/{name}")
    task = asyncio.create_task(webhook.run())
    api = FakeApi()
    try:
        yield EventWriter(Client(api), identity="pod-1", now=api.clock.now, on_posted=webhook.tell)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def first(count: int, outcomes: asyncio.Queue[str]) -> list[str]:
    async with asyncio.timeout(30):
        return [await outcomes.get() for _ in range(count)]


async def test_an_event_arrives_as_a_cloud_event_that_people_can_read(receiver: Receiver) -> None:
    """Attributes in headers, a text for chats in the body, the job's dashboard; other reasons stay in the cluster."""
    outcomes: asyncio.Queue[str] = asyncio.Queue()
    async with running(receiver.url, outcomes, token="s3cret") as events:
        events.write(make_job(), Event(reason="PreflightPassed", message="fine", key="1"))
        events.write(make_job(), FAILED)
        await events.flush()
        assert await first(1, outcomes) == ["sent"]
    ((headers, body),) = receiver.requests
    assert headers["ce-specversion"] == "1.0"
    assert headers["ce-id"].startswith("demo.")
    assert headers["ce-type"] == "finetune.dev.finetunejob.failed"
    assert headers["ce-source"] == "/apis/finetune.dev/v1alpha1/namespaces/default/finetunejobs/demo"
    assert headers["ce-subject"] == "default/demo"
    assert headers["Content-Type"] == "application/json"
    assert headers["Authorization"] == "Bearer s3cret"
    assert body == {
        "text": "FineTuneJob default/demo Failed: CudaOutOfMemory: 80 GiB\nhttps://grafana/default/demo",
        "kind": "FineTuneJob",
        "namespace": "default",
        "name": "demo",
        "uid": "uid-job",
        "type": "Warning",
        "reason": "Failed",
        "message": "CudaOutOfMemory: 80 GiB",
        "dashboardURL": "https://grafana/default/demo",
    }


async def test_what_is_said_again_is_sent_once(receiver: Receiver) -> None:
    """The cluster has the event already: a new leader that says it again tells nobody twice."""
    outcomes: asyncio.Queue[str] = asyncio.Queue()
    async with running(receiver.url, outcomes) as events:
        for key in ("1", "1", "2"):
            events.write(make_job(), Event(reason="Paused", message="Paused at step 7", key=key))
        await events.flush()
        assert await first(2, outcomes) == ["sent", "sent"]
    assert len({headers["ce-id"] for headers, _ in receiver.requests}) == len(receiver.requests) == 2


async def test_a_busy_receiver_is_asked_again_with_the_same_id(receiver: Receiver) -> None:
    outcomes: asyncio.Queue[str] = asyncio.Queue()
    receiver.codes = [503, 429]
    async with running(receiver.url, outcomes) as events:
        events.write(make_job(), FAILED)
        await events.flush()
        assert await first(1, outcomes) == ["sent"]
    assert len(receiver.requests) == 3
    assert len({headers["ce-id"] for headers, _ in receiver.requests}) == 1


async def test_a_refusal_is_final_and_the_next_event_is_sent(receiver: Receiver) -> None:
    """A wrong address or token is no reason to try again."""
    outcomes: asyncio.Queue[str] = asyncio.Queue()
    receiver.codes = [403]
    async with running(receiver.url, outcomes) as events:
        events.write(make_job(), FAILED)
        events.write(make_job(), Event(reason="Paused", message="Paused at step 7", key="1"))
        await events.flush()
        assert await first(2, outcomes) == ["refused", "sent"]


async def test_nobody_there_is_said_and_forgotten(unused_tcp_port: int, caplog: pytest.LogCaptureFixture) -> None:
    outcomes: asyncio.Queue[str] = asyncio.Queue()
    async with running(f"http://127.0.0.1:{unused_tcp_port}/hook", outcomes, patience=0.2) as events:
        events.write(make_job(), FAILED)
        await events.flush()
        assert await first(1, outcomes) == ["unreachable"]
    assert "event not delivered" in caplog.text


async def test_the_newest_events_are_kept_when_too_many_wait() -> None:
    outcomes: asyncio.Queue[str] = asyncio.Queue()
    webhook = Webhook(
        WebhookSettings(url="http://127.0.0.1:1", token=None, reasons=frozenset({"Failed"}), patience_seconds=1),
        on_outcome=outcomes.put_nowait,
    )
    api = FakeApi()
    events = EventWriter(Client(api), identity="pod-1", now=api.clock.now, on_posted=webhook.tell)
    for number in range(MAX_WAITING + 2):
        events.write(make_job(), Event(reason="Failed", message="again", key=str(number)))
    await events.flush()
    assert await first(2, outcomes) == ["dropped", "dropped"]
    assert outcomes.empty()

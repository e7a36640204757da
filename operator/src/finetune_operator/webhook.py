"""Tells people what happened to their jobs (AB-05): chosen Kubernetes events, posted to a URL.

Requests are CloudEvents 1.0 in the binary mode of its HTTP binding (https://github.com/cloudevents/spec, http-protocol-binding.md §3.1):
attributes are headers, the body is plain JSON with a ``text`` that Slack, Mattermost and Rocket.Chat show as it is. ``ce-id`` is the same
however often an event is sent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal

import aiohttp
import stamina

from finetune_api.constants import GROUP
from finetune_operator.plan.observed import Manifest

log = logging.getLogger(__name__)

MAX_WAITING = 1_000
REQUEST_SECONDS = 10.0
LONGEST_WAIT_SECONDS = 30.0
Outcome = Literal["sent", "refused", "unreachable", "dropped"]


class BusyError(Exception):
    """The receiver asks for patience: 408, 429 or 5xx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookSettings:
    """Where events go, and which."""

    url: str
    token: str | None
    """Sent as ``Authorization: Bearer``."""
    reasons: frozenset[str]
    """Reasons of Kubernetes events."""
    patience_seconds: float
    """How long one event is tried again."""


class Webhook:
    """Posts events one after the other; what cannot be delivered is counted and logged, and the cluster's own event stays."""

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        on_outcome: Callable[[Outcome], None],
        dashboard: Callable[[str, str], str | None] = lambda _namespace, _name: None,
    ) -> None:
        """``dashboard``: address of a job's dashboard, by namespace and name."""
        self._settings = settings
        self._on_outcome = on_outcome
        self._dashboard = dashboard
        self._waiting: deque[Manifest] = deque()
        self._arrived = asyncio.Event()

    def tell(self, event: Manifest) -> None:
        """Take a Kubernetes event over if its reason was asked for; :meth:`run` posts it."""
        if event["reason"] not in self._settings.reasons:
            return
        if len(self._waiting) == MAX_WAITING:
            self._end(self._waiting.popleft(), "dropped", f"{MAX_WAITING} newer ones are waiting")
        self._waiting.append(event)
        self._arrived.set()

    async def run(self) -> None:
        """Post what is waiting, until cancelled."""
        timeout = aiohttp.ClientTimeout(total=REQUEST_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
            while True:
                while self._waiting:
                    await self._deliver(session, self._waiting.popleft())
                self._arrived.clear()
                await self._arrived.wait()

    async def _deliver(self, session: aiohttp.ClientSession, event: Manifest) -> None:
        try:
            status = await self._post(session, event)
        except (aiohttp.ClientError, TimeoutError, BusyError) as error:
            self._end(event, "unreachable", f"{type(error).__name__}: {error}")
            return
        if status >= HTTPStatus.BAD_REQUEST:
            self._end(event, "refused", f"the receiver answered {status}")
        else:
            self._on_outcome("sent")

    async def _post(self, session: aiohttp.ClientSession, event: Manifest) -> int:
        settings, body = self._settings, message_of(event, self._dashboard)
        headers = headers_of(event) | ({"Authorization": f"Bearer {settings.token}"} if settings.token else {})
        async for attempt in stamina.retry_context(
            on=(aiohttp.ClientError, TimeoutError, BusyError),
            attempts=None,
            timeout=settings.patience_seconds,
            wait_max=LONGEST_WAIT_SECONDS,
        ):
            with attempt:
                async with session.post(settings.url, json=body, headers=headers, allow_redirects=False) as answer:
                    if answer.status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS) or answer.status >= 500:
                        raise BusyError(f"the receiver answered {answer.status}")
                    return answer.status
        raise AssertionError("unreachable: the retry context returns or raises")

    def _end(self, event: Manifest, outcome: Outcome, why: str) -> None:
        self._on_outcome(outcome)
        of = event["involvedObject"]
        log.warning(
            "webhook: event not delivered", extra={"job": f"{of['namespace']}/{of['name']}", "reason": event["reason"], "error": why}
        )


def headers_of(event: Manifest) -> dict[str, str]:
    """Attributes of the CloudEvent."""
    of = event["involvedObject"]
    return {
        "ce-specversion": "1.0",
        "ce-id": event["metadata"]["name"],
        "ce-source": f"/apis/{of['apiVersion']}/namespaces/{of['namespace']}/{of['kind'].lower()}s/{of['name']}",
        "ce-type": f"{GROUP}.{of['kind'].lower()}.{event['reason'].lower()}",
        "ce-subject": f"{of['namespace']}/{of['name']}",
        "ce-time": datetime.fromisoformat(event["eventTime"]).isoformat(),
    }


def message_of(event: Manifest, dashboard: Callable[[str, str], str | None]) -> dict[str, Any]:
    """Body of the request: what happened, for programs, and ``text`` for people."""
    of = event["involvedObject"]
    link = dashboard(of["namespace"], of["name"]) if of["kind"] == "FineTuneJob" else None
    told = f"{of['kind']} {of['namespace']}/{of['name']} {event['reason']}: {event['message']}"
    return {
        "text": f"{told}\n{link}" if link else told,
        "kind": of["kind"],
        "namespace": of["namespace"],
        "name": of["name"],
        "uid": of["uid"],
        "type": event["type"],
        "reason": event["reason"],
        "message": event["message"],
        "dashboardURL": link,
    }

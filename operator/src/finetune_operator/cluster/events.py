"""Kubernetes events: the story ``kubectl describe`` tells, each line once."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime

from finetune_api.constants import API_VERSION, MANAGED_BY
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import AlreadyExistsError, ApiError, NotLeaderError
from finetune_operator.cluster.resources import EVENTS
from finetune_operator.plan.decision import Event
from finetune_operator.plan.observed import Manifest, OwnObject

log = logging.getLogger(__name__)

MAX_REMEMBERED = 10_000
MAX_WAITING = 20_000


class EventWriter:
    """Writes events under names made of what they say, so that a repeated one is the same object and not a second line."""

    def __init__(
        self,
        client: Client,
        *,
        identity: str,
        now: Callable[[], datetime],
        on_posted: Callable[[Manifest], None] = lambda _event: None,
    ) -> None:
        """``on_posted`` hears of each event once, when it is in the cluster."""
        self._client = client
        self._identity = identity
        self._now = now
        self._on_posted = on_posted
        self._waiting: deque[tuple[str, Manifest]] = deque()
        self._arrived = asyncio.Event()
        self._last: OrderedDict[tuple[str, str], datetime] = OrderedDict()
        """(job uid, reason) -> when the last event of that reason was written."""

    def write(self, job: OwnObject, event: Event) -> None:
        """Take an event over unless its reason had one too recently. It is posted by :meth:`run`, after what is more urgent."""
        if event.min_interval_seconds and self._too_soon(job, event):
            return
        if len(self._waiting) == MAX_WAITING:
            log.warning("event dropped, too many are waiting", extra={"job": f"{job.namespace}/{job.name}", "reason": event.reason})
            return
        self._waiting.append((job.namespace, self._manifest(job, event)))
        self._arrived.set()

    async def run(self) -> None:
        """Post events, one after the other, until cancelled."""
        while True:
            await self.flush()
            self._arrived.clear()
            await self._arrived.wait()

    async def flush(self) -> None:
        """Post what is waiting. A refusal is logged: the status says the same."""
        while self._waiting:
            namespace, manifest = self._waiting.popleft()
            try:
                await self._client.create(EVENTS, namespace, manifest)
            except AlreadyExistsError:
                continue
            except (ApiError, NotLeaderError) as error:
                log.warning(
                    "event not posted", extra={"job": manifest["involvedObject"]["name"], "reason": manifest["reason"], "error": str(error)}
                )
            else:
                self._on_posted(manifest)

    def _too_soon(self, job: OwnObject, event: Event) -> bool:
        key, now = (job.uid, event.reason), self._now()
        last = self._last.get(key)
        if last is not None and (now - last).total_seconds() < event.min_interval_seconds:
            return True
        self._last[key] = now
        self._last.move_to_end(key)
        if len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)
        return False

    def _manifest(self, job: OwnObject, event: Event) -> Manifest:
        said = event.key or event.message
        digest = hashlib.sha256(f"{job.uid}/{event.reason}/{said}".encode()).hexdigest()[:16]
        now = self._now().astimezone(UTC)
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{job.name}.{digest}", "namespace": job.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": job.kind,
                "name": job.name,
                "namespace": job.namespace,
                "uid": job.uid,
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message,
            "action": event.reason,
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "firstTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lastTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "count": 1,
            "source": {"component": MANAGED_BY},
            "reportingComponent": MANAGED_BY,
            "reportingInstance": self._identity,
        }

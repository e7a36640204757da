"""Leader election by a Lease, on monotonic clocks: 15 s lease, renewed every 2 s, given up after 10 s, released on a clean exit."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from finetune_operator.clocks import Clocks
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import AlreadyExistsError, ApiError, ConflictError, NotLeaderError
from finetune_operator.cluster.resources import LEASES
from finetune_operator.plan.observed import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Which Lease, and its times."""

    namespace: str
    name: str
    identity: str
    lease_seconds: float
    renew_deadline_seconds: float


class LeaseLock:
    """One replica's view of the Lease.

    Another holder's lease is over when its record has not changed for its duration *by our monotonic clock*: wall clocks are never
    compared. Our own leadership ends by the same clock, so a process that was stopped and wakes knows at once that it leads no more.
    """

    def __init__(self, client: Client, settings: LeaseSettings, clocks: Clocks) -> None:
        self._client = client
        self._settings = settings
        self._clock = clocks.monotonic
        self._now = clocks.now
        self._renewed_at: float | None = None
        """When our last successful write of the Lease was sent; None while another leads."""
        self._seen: tuple[str, float] | None = None
        """resourceVersion of the record last seen and when it was first seen."""
        self.last_try: float = self._clock()
        """When the Lease was last looked at (liveness)."""

    def is_leader(self) -> bool:
        """Whether this process leads, now, for certain."""
        return self._renewed_at is not None and self._clock() - self._renewed_at < self._settings.renew_deadline_seconds

    def check(self) -> None:
        """Fence before a write: raises :class:`NotLeaderError`."""
        if not self.is_leader():
            raise NotLeaderError("this replica does not lead")

    @property
    def has_lost(self) -> bool:
        """Whether this process led and could not renew in time: others may lead by now, nothing more may be done."""
        return self._renewed_at is not None and not self.is_leader()

    async def attempt(self) -> None:
        """Take or renew the Lease if possible. API errors are logged: the next attempt may do better."""
        self.last_try = self._clock()
        try:
            await self._attempt()
        except (ConflictError, AlreadyExistsError):
            log.debug("another replica changed the lease first")
        except ApiError as error:
            log.warning("lease not renewed", extra={"error": str(error)})

    async def _attempt(self) -> None:
        started = self._clock()
        lease = await self._client.get(LEASES, self._settings.namespace, self._settings.name)
        if lease is None:
            await self._client.create(LEASES, self._settings.namespace, self._manifest({}, transitions=0))
            self._hold(started)
            return
        spec = lease.get("spec") or {}
        mine = spec.get("holderIdentity") == self._settings.identity and self._renewed_at is not None
        if not mine and not self._is_free(lease):
            return
        transitions = int(spec.get("leaseTransitions") or 0) + (0 if mine else 1)
        renewed = self._manifest(lease["metadata"], transitions=transitions, acquired=spec.get("acquireTime") if mine else None)
        await self._client.replace(LEASES, self._settings.namespace, self._settings.name, renewed)
        self._hold(started)

    def _hold(self, started: float) -> None:
        """A write of the Lease that was sent at ``started`` has succeeded.

        One that took so long that it is over already makes nobody a leader: who has led has to exit, who has not waits the Lease out.
        """
        if self._renewed_at is None and self._clock() - started >= self._settings.renew_deadline_seconds:
            log.warning("the lease was taken too slowly to lead by it", extra={"seconds": round(self._clock() - started, 1)})
            return
        self._renewed_at = started

    def _is_free(self, lease: Manifest) -> bool:
        spec = lease.get("spec") or {}
        if not spec.get("holderIdentity"):
            return True
        version = lease["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, self._clock())
        return self._clock() - self._seen[1] > float(spec.get("leaseDurationSeconds") or self._settings.lease_seconds)

    async def release(self) -> None:
        """Let go, so that another replica need not wait."""
        if not self.is_leader():
            return
        self._renewed_at = None
        try:
            lease = await self._client.get(LEASES, self._settings.namespace, self._settings.name)
            if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self._settings.identity:
                return
            released = self._manifest(lease["metadata"], transitions=int(lease["spec"].get("leaseTransitions") or 0))
            released["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
            await self._client.replace(LEASES, self._settings.namespace, self._settings.name, released)
        except ApiError as error:
            log.warning("lease not released; another replica waits it out", extra={"error": str(error)})

    def _manifest(self, metadata: dict[str, Any], *, transitions: int, acquired: str | None = None) -> Manifest:
        now = self._now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        known = {"resourceVersion": metadata["resourceVersion"], "uid": metadata["uid"]} if metadata else {}
        return {
            "apiVersion": LEASES.api_version,
            "kind": LEASES.kind,
            "metadata": {"name": self._settings.name, "namespace": self._settings.namespace, **known},
            "spec": {
                "holderIdentity": self._settings.identity,
                "leaseDurationSeconds": round(self._settings.lease_seconds),
                "acquireTime": acquired or now,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }


class Election:
    """Runs the lock: leads when it can, and ends the process rather than lead beside another."""

    def __init__(self, lock: LeaseLock, *, retry_seconds: float, lead: Callable[[], Awaitable[None]], die: Callable[[], None]) -> None:
        self._lock = lock
        self._retry_seconds = retry_seconds
        self._lead = lead
        self._die = die

    async def run(self) -> None:
        """Until cancelled; then the lead is given up and the Lease let go."""
        leading: asyncio.Future[None] | None = None
        try:
            while True:
                await self._lock.attempt()
                if self._lock.has_lost:
                    log.critical("the lease could not be renewed in time; exiting so that only one replica acts")
                    self._die()
                if leading is None and self._lock.is_leader():
                    log.info("leading")
                    leading = asyncio.ensure_future(self._lead())
                if leading is not None and leading.done():
                    leading.result()
                await asyncio.sleep(self._retry_seconds)
        finally:
            if leading is not None:
                leading.cancel()
                await asyncio.gather(leading, return_exceptions=True)
            await self._lock.release()

"""Leader election by a Lease: one replica acts.

Judged by the monotonic clock only: a lease is taken over when its record has not changed for its duration *as seen from here*, so skewed
clocks do no harm. A leader that cannot renew before its deadline ends the process at once: someone else may act already. What a leader
writes carries uids besides, so that one who slept past all this changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from finetune_operator.cluster.client import LEASES, Api
from finetune_operator.cluster.errors import ApiError, ConflictError
from finetune_operator.plan.observed import Manifest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Which Lease, who asks for it, and times in seconds: ``retry`` < ``renew_deadline`` < ``duration``."""

    namespace: str
    name: str
    identity: str
    duration: float
    renew_deadline: float
    retry: float


class LeaderLease:
    """Holds, or waits for, a Lease."""

    def __init__(self, api: Api, settings: LeaseSettings, clock: Callable[[], float], on_lost: Callable[[], None]) -> None:
        """``clock`` is monotonic; ``on_lost`` is called when a leader could not renew in time and has to end the process."""
        self._api, self._settings, self._clock, self._on_lost = api, settings, clock, on_lost
        self._renewed_at = float("-inf")
        self._seen: object = None
        self._seen_at = float("-inf")

    @property
    def leads(self) -> bool:
        """Whether this replica may act now. False as soon as the deadline passed, however late that is noticed."""
        return self._clock() - self._renewed_at < self._settings.renew_deadline

    async def run(self) -> None:
        """Take part until cancelled."""
        led = False
        while True:
            await self._try()
            if led and not self.leads:
                log.error("the Lease could not be renewed in time")
                self._on_lost()
            if led != self.leads:
                led = self.leads
                log.info("leading" if led else "following", extra={"identity": self._settings.identity})
            await asyncio.sleep(self._settings.retry)

    async def release(self) -> None:
        """Give the Lease up, so that another replica takes over at once."""
        if not self.leads:
            return
        self._renewed_at = float("-inf")
        try:
            lease = await self._api.get(LEASES, self._settings.namespace, self._settings.name)
            if lease is not None and lease["spec"].get("holderIdentity") == self._settings.identity:
                await self._api.replace(LEASES, self._settings.namespace, self._record(lease, holder=""))
        except ApiError as error:
            log.warning("the Lease could not be released; it runs out by itself: %s", error)

    async def _try(self) -> None:
        """Renew, or take what is free. An attempt counts from when it was begun."""
        began = self._clock()
        try:
            async with asyncio.timeout(self._settings.renew_deadline):
                if await self._acquire():
                    self._renewed_at = began
        except ConflictError:
            log.debug("another replica was faster")
        except (ApiError, TimeoutError) as error:
            log.warning("the Lease could not be read or written: %s", error)

    async def _acquire(self) -> bool:
        lease = await self._api.get(LEASES, self._settings.namespace, self._settings.name)
        if lease is None:
            metadata = {"name": self._settings.name, "namespace": self._settings.namespace}
            blank = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}}
            await self._api.create(LEASES, self._settings.namespace, self._record(blank, holder=self._settings.identity))
            return True
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        record = (holder, spec.get("renewTime"), lease["metadata"].get("resourceVersion"))
        if record != self._seen:
            self._seen, self._seen_at = record, self._clock()
        if holder not in ("", self._settings.identity) and self._clock() - self._seen_at < float(
            spec.get("leaseDurationSeconds") or self._settings.duration
        ):
            return False
        return await self._api.replace(LEASES, self._settings.namespace, self._record(lease, holder=self._settings.identity)) is not None

    def _record(self, lease: Manifest, *, holder: str) -> Manifest:
        now = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        old = lease.get("spec") or {}
        changed = old.get("holderIdentity") != holder
        spec = {
            "holderIdentity": holder,
            "leaseDurationSeconds": max(1, round(self._settings.duration)) if holder else 1,
            "acquireTime": now if changed else old.get("acquireTime", now),
            "renewTime": now,
            "leaseTransitions": int(old.get("leaseTransitions") or 0) + int(changed and bool(holder)),
        }
        return {**lease, "spec": spec}

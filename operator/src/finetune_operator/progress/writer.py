"""Progress into ``status.progress``: what matters at once, the rest under the token bucket, oldest first."""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from finetune_api.constants import PROGRESS_FIELD_MANAGER
from finetune_api.models.status import StatusProgress
from finetune_operator.clocks import Clocks
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import ApiError, ConflictError, NotFoundError, UnreachableError
from finetune_operator.cluster.observe import JobKey
from finetune_operator.cluster.resources import FINETUNE_JOBS
from finetune_operator.plan.report import News, is_urgent
from finetune_operator.progress.bucket import TokenBucket
from finetune_operator.progress.numbers import patch_of, same_numbers

log = logging.getLogger(__name__)

WRITE_TRIES = 5
"""Others write the same object now and then."""


@dataclass(slots=True)
class _Stored:
    """What this replica wrote last for a job."""

    uid: str
    progress: StatusProgress
    news: News
    at: float


@dataclass(slots=True)
class _Pending:
    uid: str
    progress: StatusProgress
    news: News
    since: float


class ProgressWriter:
    """Writes the progress of all jobs whose posts this replica gets."""

    def __init__(
        self, client: Client, bucket: TokenBucket, clocks: Clocks, *, min_seconds: float, on_urgent: Callable[[JobKey, News], None]
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._clock = clocks.monotonic
        self._min_seconds = min_seconds
        self._on_urgent = on_urgent
        self._stored: dict[JobKey, _Stored] = {}
        self._pending: OrderedDict[JobKey, _Pending] = OrderedDict()
        self._changed = asyncio.Event()

    @property
    def pending(self) -> int:
        """Jobs whose newest numbers are not stored yet."""
        return len(self._pending)

    @property
    def oldest_seconds(self) -> float:
        """Age of the oldest numbers not stored yet."""
        now = self._clock()
        return max((now - pending.since for pending in self._pending.values()), default=0.0)

    def forget(self, key: JobKey) -> None:
        """Drop a job that is gone."""
        self._stored.pop(key, None)
        self._pending.pop(key, None)

    def newest(self, key: JobKey, uid: str) -> StatusProgress | None:
        """The newest progress this replica knows of, stored or not."""
        pending, stored = self._pending.get(key), self._stored.get(key)
        if pending is not None and pending.uid == uid:
            return pending.progress
        return stored.progress if stored is not None and stored.uid == uid else None

    async def take(self, key: JobKey, uid: str, progress: StatusProgress, *, news: News, known: News) -> None:
        """Take a post over. Returns when what is urgent is stored; raises :class:`ApiError` when that failed.

        ``news`` is what the post says, ``known`` what the job's status holds of it as far as this replica knows.
        """
        stored = self._stored.get(key)
        if stored is not None and stored.uid != uid:
            self.forget(key)
            stored = None
        fresh = news - (stored.news if stored is not None else known)
        if is_urgent(fresh):
            self._bucket.force()
            self._pending.pop(key, None)
            await self._write(key, uid, progress, news)
            self._on_urgent(key, fresh)
            return
        if stored is not None and not fresh and same_numbers(stored.progress, progress):
            return
        since = self._pending[key].since if key in self._pending else self._clock()
        self._pending[key] = _Pending(uid, progress, news, since)
        self._changed.set()

    async def run(self) -> None:
        """Store periodic progress until cancelled."""
        while True:
            delay = await self.flush_one()
            if delay is None:
                self._changed.clear()
                await self._changed.wait()
            elif delay > 0:
                await asyncio.sleep(delay)

    async def flush_one(self) -> float | None:
        """Store the longest waiting progress. Returns how long to wait before the next; None when nothing is waiting."""
        if not self._pending:
            return None
        wait = self._bucket.wait_seconds()
        if wait > 0:
            return wait
        now = self._clock()
        key = next((key for key in self._pending if self._due_in(key, now) <= 0), None)
        if key is None:
            return min(self._due_in(key, now) for key in self._pending)
        self._bucket.take()
        pending = self._pending.pop(key)
        try:
            await self._write(key, pending.uid, pending.progress, pending.news)
        except ApiError as error:
            log.warning("progress not stored; the next post brings it again", extra={"job": str(key), "error": str(error)})
        return 0.0

    def _due_in(self, key: JobKey, now: float) -> float:
        """Seconds until a job may be written again; news need not wait."""
        stored = self._stored.get(key)
        if stored is None or not self._pending[key].news <= stored.news:
            return 0.0
        return stored.at + self._min_seconds - now

    async def _write(self, key: JobKey, uid: str, progress: StatusProgress, news: News) -> None:
        try:
            await self._patch(key, uid, progress)
        except NotFoundError:
            self.forget(key)
            raise
        self._stored[key] = _Stored(uid, progress, news, self._clock())

    async def _patch(self, key: JobKey, uid: str, progress: StatusProgress) -> None:
        """Patch the job of this uid. The version read with the uid is the precondition: on a status subresource a uid is not checked."""
        for tries_left in reversed(range(WRITE_TRIES)):
            manifest = await self._client.get(FINETUNE_JOBS, key.namespace, key.name)
            if manifest is None or manifest["metadata"]["uid"] != uid:
                raise NotFoundError(404, "NotFound", f"FineTuneJob {key} with uid {uid} is gone")
            metadata = {"uid": uid, "resourceVersion": manifest["metadata"]["resourceVersion"]}
            patch = {"metadata": metadata, "status": {"progress": patch_of(progress)}}
            try:
                await self._client.patch_status(FINETUNE_JOBS, key.namespace, key.name, patch, PROGRESS_FIELD_MANAGER)
            except ConflictError as error:
                if tries_left == 0:
                    raise UnreachableError(error.status, error.reason, "the job kept changing while its progress was written") from error
            else:
                return

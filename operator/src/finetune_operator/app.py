"""Wiring: one object of each kind, started and stopped in order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

import kopf
from aiohttp import web

from finetune_api.constants import GROUP, PLURAL, VERSION
from finetune_operator import health
from finetune_operator.cluster.client import Client, KubernetesTransport
from finetune_operator.cluster.errors import ApiError, NotFoundError
from finetune_operator.cluster.events import EventWriter
from finetune_operator.cluster.lease import Election, LeaseLock
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import JobFeed
from finetune_operator.handlers import build_registry
from finetune_operator.metrics import JobCollector, OperatorMetrics
from finetune_operator.plan.report import News
from finetune_operator.progress.bucket import TokenBucket
from finetune_operator.progress.guard import FailureGuard
from finetune_operator.progress.jwks import JwksAuthenticator
from finetune_operator.progress.server import ProgressEndpoint
from finetune_operator.progress.tls import CaPublisher, TlsKeeper
from finetune_operator.progress.tokens import Authenticator, PosterLookup, TokenReviewAuthenticator
from finetune_operator.progress.writer import ProgressWriter
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile import Reconciler
from finetune_operator.settings import Settings

log = logging.getLogger(__name__)

STUCK_SECONDS = 300.0
"""A look at a job takes well under a second; one that takes this long hangs."""
CRD_LOOK_SECONDS = 2.0


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Operator:
    """The running operator."""

    def __init__(self, settings: Settings, transport: KubernetesTransport, directory: Path) -> None:
        self._settings = settings
        self._version = version("finetune-operator")
        self.metrics = OperatorMetrics(self._version)
        self._client = Client(transport, observer=self.metrics.on_request)
        self._lock = LeaseLock(
            self._client,
            namespace=settings.namespace,
            name=settings.lease_name,
            identity=settings.identity,
            lease_seconds=settings.lease_seconds,
            renew_deadline_seconds=settings.renew_deadline_seconds,
            clock=time.monotonic,
            now=utc_now,
        )
        self._leading = asyncio.Event()
        self.feed = JobFeed(self._mark, self._forget)
        self._fenced = self._client.fenced(self._lock.check)
        self._tls = self._build_tls(directory)
        self._publisher = CaPublisher(self._fenced, lambda: self._tls.ca)
        self._queue = self._build_queue()
        self._writer = ProgressWriter(
            self._client,
            TokenBucket(settings.progress_writes_per_second, clock=time.monotonic),
            clock=time.monotonic,
            min_seconds=settings.progress_min_write_seconds,
            on_urgent=self._urgent,
        )
        self._ready = asyncio.Event()
        """Set once kopf watches."""
        self._register_gauges()

    # --- parts ---

    def _build_tls(self, directory: Path) -> TlsKeeper:
        settings = self._settings
        host = urlsplit(settings.progress_url).hostname or ""
        names = tuple(dict.fromkeys((host, *settings.tls_names)))
        return TlsKeeper(
            self._client,
            namespace=settings.namespace,
            secret=settings.tls_secret,
            names=names,
            directory=directory,
            may_write=lambda: settings.tls_source == "self" and self._lock.is_leader(),
            now=utc_now,
        )

    def _build_queue(self) -> WorkQueue[JobKey]:
        events = EventWriter(self._fenced, identity=self._settings.identity, now=utc_now)
        reconciler = Reconciler(
            self._fenced,
            events,
            publish_ca=self._publisher.publish,
            settings=self._settings.for_plan(self._version),
            now=utc_now,
            forget=self.feed.drop,
        )
        return WorkQueue(
            reconciler.reconcile,
            clock=time.monotonic,
            rng=random.Random(),  # noqa: S311 - spreads load
            resync_seconds=self._settings.resync_seconds,
            on_result=self.metrics.on_result,
        )

    def _build_endpoint(self) -> ProgressEndpoint:
        authenticator: Authenticator = (
            TokenReviewAuthenticator(self._client)
            if self._settings.cluster_reads
            else JwksAuthenticator(self._client, clock=time.monotonic, issuer=self._settings.token_issuer)
        )
        return ProgressEndpoint(
            client=self._client,
            feed=self.feed,
            posters=PosterLookup(self._client, authenticator, now=time.time),
            writer=self._writer,
            guard=FailureGuard(clock=time.monotonic),
            now=utc_now,
            on_post=self.metrics.on_post,
        )

    def _register_gauges(self) -> None:
        watch = self.metrics.watch
        watch("finetune_operator_leader", "1 on the replica that leads.", lambda: float(self._lock.is_leader()))
        watch("finetune_operator_workqueue_depth", "Jobs that wait to be looked at.", lambda: self._queue.depth)
        watch(
            "finetune_operator_workqueue_oldest_seconds", "How long the longest waiting job has waited.", lambda: self._queue.oldest_seconds
        )
        watch("finetune_operator_progress_pending", "Jobs whose newest numbers are not in their status yet.", lambda: self._writer.pending)
        watch(
            "finetune_operator_progress_oldest_seconds",
            "Age of the oldest numbers not in a status yet.",
            lambda: self._writer.oldest_seconds,
        )
        watch("finetune_operator_jobs_known", "FineTuneJobs the watch knows of.", lambda: len(self.feed))
        self.metrics.registry.register(JobCollector(self.feed, is_leader=self._lock.is_leader))

    # --- between parts ---

    def _mark(self, key: JobKey, delay: float) -> None:
        if self._leading.is_set():
            self._queue.add(key, delay)

    def _forget(self, key: JobKey) -> None:
        self._queue.forget(key)
        self._writer.forget(key)

    def _urgent(self, key: JobKey, news: News) -> None:
        """This replica stored news: as the leader it acts on them now, and their watch event is none."""
        if self._leading.is_set():
            self.feed.noted(key, news)
            self._queue.add(key)

    async def _lead(self) -> None:
        """What only the leader does."""
        self._leading.set()
        self._queue.spread(self.feed.unsettled(), over_seconds=min(30.0, len(self.feed) / 100))
        try:
            await self._queue.run(self._settings.workers)
        finally:
            self._leading.clear()
            self._queue.clear()

    def _new_ca(self) -> None:
        if self._lock.is_leader():
            task = asyncio.create_task(self._publisher.publish_again(), name="publish CA")
            task.add_done_callback(lambda done: done.exception())

    # --- running ---

    async def run(self) -> None:
        """Until SIGTERM or SIGINT (kopf handles them)."""
        election = Election(self._lock, retry_seconds=self._settings.retry_seconds, lead=self._lead, die=lambda: os._exit(1))
        services = (election.run(), self._tls.run(self._new_ca), self._writer.run())
        async with self._serving(), _running(*services):
            await self._await_crd()
            await kopf.operator(
                registry=build_registry(self.feed, lambda resource, kind: self.metrics.events.labels(resource, kind).inc()),
                clusterwide=not self._settings.watch_namespaces,
                namespaces=self._settings.watch_namespaces,
                standalone=True,
                ready_flag=self._ready,
            )
            log.info("stopping")

    async def _await_crd(self) -> None:
        """Kopf looks for resources once: do not let it look before the CRD is served."""
        while True:
            try:
                found = await self._client.raw(f"/apis/{GROUP}/{VERSION}")
                if any(resource["name"] == PLURAL for resource in found.get("resources") or ()):
                    return
                log.info("waiting for the CRD", extra={"crd": f"{PLURAL}.{GROUP}"})
            except NotFoundError:
                log.info("waiting for the CRD", extra={"crd": f"{PLURAL}.{GROUP}"})
            except ApiError as error:
                log.warning("API server not usable yet", extra={"error": str(error)})
            await asyncio.sleep(CRD_LOOK_SECONDS)

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """The two ports."""
        settings = self._settings
        plain = web.AppRunner(
            health.build_app(self.metrics.registry, health=self._health_checks(), readiness=self._readiness_checks()), access_log=None
        )
        secure = web.AppRunner(self._build_endpoint().build_app(), access_log=None)
        await plain.setup()
        await secure.setup()
        try:
            await web.TCPSite(plain, settings.http_host, settings.http_port).start()
            await web.TCPSite(secure, settings.progress_host, settings.progress_port, ssl_context=self._tls.context).start()
            yield
        finally:
            await secure.cleanup()
            await plain.cleanup()

    def _health_checks(self) -> dict[str, health.Check]:
        limit = self._settings.lease_seconds * 4

        def lease() -> str:
            age = time.monotonic() - self._lock.last_try
            return f"the lease was not looked at for {age:.0f} s" if age > limit else ""

        def workers() -> str:
            age = self._queue.longest_work_seconds
            return f"a reconcile has taken {age:.0f} s" if age > STUCK_SECONDS else ""

        return {"lease": lease, "workers": workers}

    def _readiness_checks(self) -> dict[str, health.Check]:
        return {
            "tls": lambda: "" if self._tls.loaded.is_set() else "there is no certificate for the progress endpoint yet",
            "watch": lambda: "" if self._ready.is_set() else "the watches have not started",
        }


@asynccontextmanager
async def _running(*coroutines: object) -> AsyncIterator[None]:
    """Run services beside the body; a service that ends by itself ends the process (it never should)."""
    owner = asyncio.current_task()
    assert owner is not None
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]  # type: ignore[call-overload]

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.critical("a service failed", exc_info=task.exception())
            owner.cancel()

    for task in tasks:
        task.add_done_callback(ended)
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def run(settings: Settings) -> None:
    """Connect and run."""
    transport = await KubernetesTransport.connect()
    try:
        with tempfile.TemporaryDirectory(prefix="finetune-operator-") as directory:
            await Operator(settings, transport, Path(directory)).run()
    finally:
        await transport.close()

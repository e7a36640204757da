"""Wiring: one object of each kind, started and stopped in order."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kopf
from aiohttp import web

from finetune_api.constants import BUDGET_PLURAL, DATASET_PLURAL, GROUP, PLURAL, VERSION
from finetune_api.contract import metrics as names
from finetune_operator import health
from finetune_operator.budget_metrics import BudgetCollector
from finetune_operator.clocks import Clocks, system_clocks
from finetune_operator.cluster.budgets import BudgetKey
from finetune_operator.cluster.client import Client, KubernetesTransport
from finetune_operator.cluster.datasets import DatasetKey
from finetune_operator.cluster.errors import ApiError, NotFoundError
from finetune_operator.cluster.events import EventWriter
from finetune_operator.cluster.lease import Election, LeaseLock, LeaseSettings
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import JobFeed, JobLookup
from finetune_operator.feed_budgets import BudgetFeed
from finetune_operator.feed_datasets import DatasetFeed
from finetune_operator.handlers import build_registry
from finetune_operator.job_metrics import JobCollector, JobHistory
from finetune_operator.metrics import OperatorMetrics
from finetune_operator.plan.report import News
from finetune_operator.plan.status import dashboard_url
from finetune_operator.progress.bucket import TokenBucket
from finetune_operator.progress.jwks import JwksAuthenticator
from finetune_operator.progress.server import ProgressEndpoint
from finetune_operator.progress.tls import CaPublisher, TlsKeeper, TlsSettings
from finetune_operator.progress.tokens import Authenticator, PosterLookup, TokenReviewAuthenticator
from finetune_operator.progress.writer import ProgressWriter
from finetune_operator.queue import WorkQueue
from finetune_operator.reconcile import Reconciler
from finetune_operator.reconcile_budget import BudgetReconciler
from finetune_operator.reconcile_dataset import DatasetReconciler
from finetune_operator.settings import Settings
from finetune_operator.webhook import Webhook, WebhookSettings

log = logging.getLogger(__name__)

STUCK_SECONDS = 300.0
"""A look at a job takes well under a second; one that takes this long hangs."""
CRD_LOOK_SECONDS = 2.0
WATCHED = frozenset({PLURAL, DATASET_PLURAL, BUDGET_PLURAL})
FIRST_LOOKS_PER_SECOND = 100.0
"""A new leader looks at every job once, at this pace."""


class Operator:
    """The running operator."""

    def __init__(self, settings: Settings, transport: KubernetesTransport, directory: Path, clocks: Clocks) -> None:
        self._settings = settings
        self._clocks = clocks
        self._version = version("finetune-operator")
        self._metrics = OperatorMetrics(self._version)
        self._client = Client(transport, observer=self._metrics.on_request)
        self._lock = LeaseLock(self._client, _lease_settings(settings), clocks)
        self._fenced = self._client.fenced(self._lock.check)
        """For what only the leader may write."""
        self._leading = False
        history = JobHistory(self._metrics.registry, is_leader=self._lock.is_leader, now=clocks.now)
        self._feed = JobFeed(self._mark, self._forget, on_change=history.changed, lag=lambda: self._queue.oldest_seconds)
        self._datasets = DatasetFeed(self._mark, self._forget_dataset, waiting_for=self._feed.waiting_for)
        self._budgets = BudgetFeed(self._mark, self._forget_budget, waiting=self._feed.waiting_for_budget)
        self._tls = TlsKeeper(self._client, _tls_settings(settings, directory), may_write=self._may_issue, now=clocks.now)
        self._publisher = CaPublisher(self._fenced, lambda: self._tls.ca, clock=self._clocks.monotonic)
        self._webhook = self._build_webhook()
        tell = {"on_posted": self._webhook.tell} if self._webhook is not None else {}
        self._events = EventWriter(self._fenced, identity=settings.identity, now=clocks.now, **tell)
        self._queue = self._build_queue()
        bucket = TokenBucket(settings.progress_writes_per_second, clock=clocks.monotonic)
        self._writer = ProgressWriter(
            self._client, bucket, clocks, min_seconds=settings.progress_min_write_seconds, on_urgent=self._act_on_news
        )
        self._watching = asyncio.Event()
        self._stop = asyncio.Event()
        self._register_gauges()

    # --- parts ---

    def _build_webhook(self) -> Webhook | None:
        settings = self._settings
        if settings.webhook_url is None:
            return None
        asked = WebhookSettings(
            url=settings.webhook_url,
            token=settings.webhook_token,
            reasons=frozenset(settings.webhook_reasons),
            patience_seconds=settings.webhook_patience_seconds,
        )
        return Webhook(asked, on_outcome=self._metrics.on_notification, dashboard=lambda *job: dashboard_url(settings.grafana_url, *job))

    def _build_queue(self) -> WorkQueue[JobKey | DatasetKey | BudgetKey]:
        jobs = Reconciler(
            self._fenced,
            self._events,
            ca=self._publisher,
            settings=self._settings.for_plan(self._version),
            now=self._clocks.now,
            forget=self._feed.drop,
        )
        datasets = DatasetReconciler(
            self._fenced,
            self._events,
            settings=self._settings.for_plan(self._version),
            now=self._clocks.now,
            forget=self._datasets.drop,
        )

        budgets = BudgetReconciler(self._fenced, now=self._clocks.now, farewells=self._budgets.farewells, forget=self._budgets.drop)

        async def reconcile(key: JobKey | DatasetKey | BudgetKey) -> float | None:
            match key:
                case JobKey():
                    return await jobs.reconcile(key)
                case DatasetKey():
                    return await datasets.reconcile(key)
                case BudgetKey():
                    return await budgets.reconcile(key)

        return WorkQueue(
            reconcile,
            clock=self._clocks.monotonic,
            rng=random.Random(),  # noqa: S311 - spreads load
            resync_seconds=self._settings.resync_seconds,
            on_result=self._metrics.on_result,
        )

    def _build_endpoint(self) -> ProgressEndpoint:
        offline = JwksAuthenticator(self._client, clock=self._clocks.monotonic, issuer=self._settings.token_issuer)
        authenticator: Authenticator = TokenReviewAuthenticator(self._client) if self._settings.cluster_reads else offline
        posters = PosterLookup(self._client, authenticator, now=time.time)
        return ProgressEndpoint(JobLookup(self._feed, self._client), posters, self._writer, self._clocks, on_post=self._metrics.on_post)

    def _register_gauges(self) -> None:
        watch = self._metrics.watch
        watch(names.LEADER, lambda: float(self._lock.is_leader()))
        watch(names.QUEUE_DEPTH, lambda: self._queue.depth)
        watch(names.QUEUE_OLDEST, lambda: self._queue.oldest_seconds)
        watch(names.PROGRESS_PENDING, lambda: self._writer.pending)
        watch(names.PROGRESS_OLDEST, lambda: self._writer.oldest_seconds)
        watch(names.JOBS_KNOWN, lambda: len(self._feed))
        self._metrics.registry.register(JobCollector(self._feed, is_leader=self._lock.is_leader))
        self._metrics.registry.register(BudgetCollector(self._budgets, is_leader=self._lock.is_leader))

    # --- between parts ---

    def _may_issue(self) -> bool:
        return self._settings.tls_source == "self" and self._lock.is_leader()

    def _mark(self, key: JobKey | DatasetKey | BudgetKey, delay: float) -> None:
        if self._leading:
            self._queue.add(key, delay)

    def _forget(self, key: JobKey) -> None:
        self._queue.forget(key)
        self._writer.forget(key)

    def _forget_dataset(self, key: DatasetKey) -> None:
        self._queue.forget(key)

    def _forget_budget(self, key: BudgetKey) -> None:
        self._queue.forget(key)

    def _act_on_news(self, key: JobKey, news: News) -> None:
        """News this replica stored: as the leader it acts on them now, and their watch event is none."""
        if self._leading:
            self._feed.noted(key, news)
            self._queue.add(key)

    async def _lead(self) -> None:
        """What only the leader does."""
        self._leading = True
        known = len(self._feed) + len(self._datasets) + len(self._budgets)
        keys: list[JobKey | DatasetKey | BudgetKey] = [*self._feed.unsettled(), *self._datasets.keys(), *self._budgets.keys()]
        self._queue.spread(keys, over_seconds=known / FIRST_LOOKS_PER_SECOND)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._queue.run(self._settings.workers), name="queue")
                group.create_task(self._events.run(), name="events")
                if self._webhook is not None:
                    group.create_task(self._webhook.run(), name="webhook")
        finally:
            self._leading = False
            self._queue.clear()

    async def _keep_tls(self) -> None:
        async for _ in self._tls.changes():
            if self._lock.is_leader():
                await self._publisher.publish_again()

    # --- running ---

    async def run(self) -> None:
        """Until SIGTERM or SIGINT: then the lead is given up at once, and the watches end last."""
        self._listen()
        election = Election(self._lock, retry_seconds=self._settings.retry_seconds, lead=self._lead, die=lambda: os._exit(1))
        end_watch = asyncio.Event()
        services = {"election": election.run(), "tls": self._keep_tls(), "progress": self._writer.run(), "watch": self._watch(end_watch)}
        async with self._serving():
            tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in services.items()]
            await _first_end(tasks, self._stop)
            log.info("stopping")
            *own, watch = tasks
            await _cancel(own)
        end_watch.set()
        await asyncio.wait([watch], timeout=self._settings.shutdown_seconds)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()

    def _listen(self) -> None:
        """Stop in order on SIGTERM and SIGINT. kopf installs handlers of its own when it starts; ours are then installed again."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    async def _watch(self, end: asyncio.Event) -> None:
        await self._await_crd()
        listening = asyncio.create_task(self._listen_again(), name="signals")
        registry = build_registry(
            self._feed,
            self._datasets,
            self._budgets,
            self._metrics.on_event,
            silence_seconds=self._settings.watch_silence_seconds,
        )
        await kopf.operator(
            registry=registry,
            clusterwide=not self._settings.watch_namespaces,
            namespaces=self._settings.watch_namespaces,
            standalone=True,
            ready_flag=self._watching,
            stop_flag=end,
        )
        await _cancel([listening])

    async def _listen_again(self) -> None:
        await self._watching.wait()
        self._listen()

    async def _await_crd(self) -> None:
        """Kopf looks for resources once: do not let it look before the CRDs are served."""
        while missing := await self._missing_crds():
            log.info("waiting for the CRDs", extra={"crds": ", ".join(f"{plural}.{GROUP}" for plural in sorted(missing))})
            await asyncio.sleep(CRD_LOOK_SECONDS)

    async def _missing_crds(self) -> frozenset[str]:
        """Plurals of what is watched and not served; all of them while the API server does not say."""
        try:
            found = await self._client.raw(f"/apis/{GROUP}/{VERSION}")
        except NotFoundError:
            return WATCHED
        except ApiError as error:
            log.warning("API server not usable yet", extra={"error": str(error)})
            return WATCHED
        return WATCHED - {resource["name"] for resource in found.get("resources") or ()}

    @asynccontextmanager
    async def _serving(self) -> AsyncIterator[None]:
        """The two ports."""
        settings = self._settings
        checks = health.build_app(self._metrics.registry, health=self._health_checks(), readiness=self._readiness_checks())
        plain = web.AppRunner(checks, access_log=None)
        secure = web.AppRunner(self._build_endpoint().build_app(), access_log=None)
        try:
            await plain.setup()
            await secure.setup()
            await web.TCPSite(plain, settings.http_host, settings.http_port).start()
            await web.TCPSite(secure, settings.progress_host, settings.progress_port, ssl_context=self._tls.context).start()
            yield
        finally:
            await secure.cleanup()
            await plain.cleanup()

    def _health_checks(self) -> dict[str, health.Check]:
        limit = self._settings.lease_seconds * 4

        def lease() -> str:
            age = self._clocks.monotonic() - self._lock.last_try
            return f"the lease was not looked at for {age:.0f} s" if age > limit else ""

        def workers() -> str:
            age = self._queue.longest_work_seconds
            return f"a reconcile has taken {age:.0f} s" if age > STUCK_SECONDS else ""

        return {"lease": lease, "workers": workers}

    def _readiness_checks(self) -> dict[str, health.Check]:
        return {
            "tls": lambda: "" if self._tls.loaded else "there is no certificate for the progress endpoint yet",
            "watch": lambda: "" if self._watching.is_set() else "the watches have not started",
        }


def _lease_settings(settings: Settings) -> LeaseSettings:
    return LeaseSettings(
        namespace=settings.namespace,
        name=settings.lease_name,
        identity=settings.identity,
        lease_seconds=settings.lease_seconds,
        renew_deadline_seconds=settings.renew_deadline_seconds,
    )


def _tls_settings(settings: Settings, directory: Path) -> TlsSettings:
    host = urlsplit(settings.progress_url).hostname or ""
    names = tuple(dict.fromkeys((host, *settings.tls_names)))
    return TlsSettings(namespace=settings.namespace, secret=settings.tls_secret, names=names, directory=directory)


async def _first_end(tasks: list[asyncio.Task[None]], stop: asyncio.Event) -> None:
    """Return when told to stop, or when a service ends by itself (none should)."""
    told = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait([told, *tasks], return_when=asyncio.FIRST_COMPLETED)
    await _cancel([told])


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def run(settings: Settings) -> None:
    """Connect and run."""
    transport = await KubernetesTransport.connect()
    try:
        with tempfile.TemporaryDirectory(prefix="finetune-operator-") as directory:
            await Operator(settings, transport, Path(directory), system_clocks()).run()
    finally:
        await transport.close()

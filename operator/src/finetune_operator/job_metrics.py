"""Series of jobs, so that their state and last numbers outlive their pods: states read at scrape time, histories from watch events."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.contract import metrics as names
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import UsageSeconds
from finetune_api.models.status import FINAL_PHASES, RESTING_PHASES, Phase, UsageStatus
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import JobFeed, Known
from finetune_operator.plan.observed import parse_time

MINUTES = (5, 15, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400)
"""Bucket bounds of waits, in seconds."""
OUTCOMES: Final = (Phase.SUCCEEDED.value, Phase.PAUSED.value, *(each.value for each in FailureClass))
"""Of attempts. Each has a series from the start: Prometheus sees no increase in one that begins at 1."""
Read = Callable[[Known], float | None]


class JobCollector(Collector):
    """Made at scrape time from what the watch knows: a job that is gone leaves no series. Only the leader has them."""

    def __init__(self, feed: JobFeed, *, is_leader: Callable[[], bool]) -> None:
        self._feed = feed
        self._is_leader = is_leader

    def describe(self) -> Iterator[Metric]:
        """Nothing fixed: series exist only for jobs."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All series of all jobs."""
        if not self._is_leader():
            return
        jobs = list(self._feed)
        yield _phases(jobs)
        info, phase, warning = (
            GaugeMetricFamily(name, name.help, labels=name.labels) for name in (names.JOB_INFO, names.JOB_PHASE, names.JOB_WARNING)
        )
        usage = CounterMetricFamily(names.JOB_USAGE, names.JOB_USAGE.help, labels=names.JOB_USAGE.labels)
        lost = CounterMetricFamily(names.JOB_LOST_STEPS, names.JOB_LOST_STEPS.help, labels=names.JOB_LOST_STEPS.labels)
        cost = CounterMetricFamily(names.JOB_COST, names.JOB_COST.help, labels=names.JOB_COST.labels)
        for key, known in jobs:
            job = (key.namespace, key.name)
            info.add_metric((*job, *known.shown.config), 1)
            phase.add_metric((*job, known.phase, known.reason), 1)
            for condition in known.shown.warnings:
                warning.add_metric((*job, condition), 1)
            lost.add_metric(job, known.shown.usage.lost_steps)
            for use, seconds in _by_use(known.shown.usage):
                usage.add_metric((*job, known.shown.device, use), seconds)
            if known.shown.usage.cost is not None:
                cost.add_metric((*job, known.shown.usage.currency or ""), float(known.shown.usage.cost))
        yield from (info, phase, warning, lost, usage, cost)
        yield from (_family(jobs, name, read) for name, read in GAUGES.items())


class JobHistory:
    """Counts what happens to jobs. Only what the leader sees is counted, each once."""

    def __init__(self, registry: CollectorRegistry, *, is_leader: Callable[[], bool], now: Callable[[], datetime]) -> None:
        self._is_leader = is_leader
        self._now = now
        self._queued: dict[JobKey, datetime] = {}
        """Since when jobs are in phase Queued."""
        self._transitions = Counter(names.TRANSITIONS, names.TRANSITIONS.help, names.TRANSITIONS.labels, registry=registry)
        self._ended = Counter(names.ATTEMPTS_ENDED, names.ATTEMPTS_ENDED.help, names.ATTEMPTS_ENDED.labels, registry=registry)
        self._queue_seconds, self._startup_seconds, self._pause_seconds = (
            Histogram(name, name.help, buckets=MINUTES, registry=registry)
            for name in (names.QUEUE_DURATION, names.STARTUP_DURATION, names.PAUSE_DURATION)
        )
        for phase in Phase:
            self._transitions.labels(phase.value)
        for outcome in OUTCOMES:
            self._ended.labels(outcome)

    def changed(self, key: JobKey, before: Known | None, now: Known | None) -> None:
        """A job was seen anew; ``before`` None: for the first time, ``now`` None: it is gone."""
        if now is None or before is None or before.uid != now.uid:
            self._queued.pop(key, None)
            return
        queued = self._queued.pop(key, None)
        if now.phase == Phase.QUEUED:
            self._queued[key] = queued or self._now()
        if not self._is_leader():
            return
        if now.shown.ended is not None and now.shown.ended != before.shown.ended:
            self._ended.labels(now.shown.ended[1]).inc()
        if now.phase != before.phase:
            self._transitions.labels(now.phase).inc()
            self._entered(now, queued)

    def _entered(self, now: Known, queued: datetime | None) -> None:
        if queued is not None:
            self._queue_seconds.observe((self._now() - queued).total_seconds())
        if now.phase == Phase.TRAINING and now.shown.run_started is not None and now.shown.ended is None:
            self._startup_seconds.observe((self._now() - now.shown.run_started).total_seconds())
        if now.phase == Phase.PAUSED and now.pause is not None:
            requested = parse_time(now.pause.requested_at)
            assert requested is not None, "a pause has a time"
            self._pause_seconds.observe((self._now() - requested).total_seconds())


def _phases(jobs: list[tuple[JobKey, Known]]) -> GaugeMetricFamily:
    """Jobs by phase; every phase has a series, so that none is missing while no job is in it."""
    family = GaugeMetricFamily(names.JOBS, names.JOBS.help, labels=names.JOBS.labels)
    totals = {each.value: 0 for each in Phase}
    for _, known in jobs:
        totals[known.phase or Phase.PENDING] = totals.get(known.phase or Phase.PENDING, 0) + 1
    for name, number in totals.items():
        family.add_metric((name,), number)
    return family


def _family(jobs: list[tuple[JobKey, Known]], name: names.Metric, read: Read) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, name.help, labels=name.labels)
    for key, known in jobs:
        value = read(known)
        if value is not None:
            family.add_metric((key.namespace, key.name), value)
    return family


def _by_use(usage: UsageStatus) -> Iterator[tuple[str, float]]:
    for use in UsageSeconds.model_fields:
        yield use, getattr(usage, f"{use}_seconds")


def _of_progress(name: str, factor: float = 1.0, *, only_running: bool = False) -> Read:
    def read(known: Known) -> float | None:
        if known.progress is None or (only_running and known.phase in RESTING_PHASES | FINAL_PHASES):
            return None
        value = getattr(known.progress, name)
        return value * factor if value is not None else None

    return read


def _stamp(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment is not None else None


GAUGES: Final[dict[names.Metric, Read]] = {
    names.JOB_PROGRESS: _of_progress("percent", 0.01),
    names.JOB_STEP: _of_progress("step"),
    names.JOB_TOTAL_STEPS: _of_progress("total_steps"),
    names.JOB_LOSS: _of_progress("loss"),
    names.JOB_EVAL_LOSS: _of_progress("eval_loss"),
    names.JOB_TOKENS_PER_SECOND: _of_progress("tokens_per_second"),
    names.JOB_ETA: _of_progress("eta_seconds", only_running=True),
    names.JOB_LAST_PROGRESS: lambda known: _stamp(known.updated_at),
    names.JOB_CHECKPOINT_STEP: lambda known: known.shown.checkpoint_step,
    names.JOB_CHECKPOINT_TIME: lambda known: _stamp(known.shown.checkpoint_time),
    names.JOB_ATTEMPTS: lambda known: known.attempts,
    names.JOB_RUN: lambda known: known.run,
    names.JOB_PODS: lambda known: known.shown.pods,
    names.JOB_GPUS: lambda known: known.shown.gpus,
    names.JOB_CREATED: lambda known: _stamp(known.shown.created),
    names.JOB_STARTED: lambda known: _stamp(known.shown.run_started),
    names.JOB_FINISHED: lambda known: _stamp(known.shown.finished),
}
"""Gauges without labels of their own, and what they are read from."""

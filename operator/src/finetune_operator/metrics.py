"""Prometheus metrics of the operator, and of the jobs it knows (so that a job's last numbers outlive its pods)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from finetune_api.models.status import Phase
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import JobFeed, Known

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
JOB_LABELS = ("namespace", "name")
Jobs = list[tuple[JobKey, Known]]


class OperatorMetrics:
    """The operator's own metrics, in a registry of their own."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.info = Gauge("finetune_operator_info", "1; the operator's version is a label.", ["version"], registry=self.registry)
        self.info.labels(version).set(1)
        self.reconciles = Counter(
            "finetune_operator_reconcile_total", "Looks at a job, by result: ok, again, error.", ["result"], registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "finetune_operator_reconcile_duration_seconds", "Duration of a look at a job.", buckets=_SECONDS, registry=self.registry
        )
        self.requests = Counter(
            "finetune_operator_api_requests_total", "Requests to the API server.", ["verb", "resource", "code"], registry=self.registry
        )
        self.events = Counter(
            "finetune_operator_watch_events_total", "Watch events received.", ["resource", "type"], registry=self.registry
        )
        self.posts = Counter("finetune_operator_progress_posts_total", "Progress posts answered.", ["code"], registry=self.registry)
        self.post_seconds = Histogram(
            "finetune_operator_progress_post_duration_seconds", "Time to answer a progress post.", buckets=_SECONDS, registry=self.registry
        )

    def on_result(self, _key: object, result: str, seconds: float) -> None:
        """A look at a job is over."""
        self.reconciles.labels(result).inc()
        self.reconcile_seconds.observe(seconds)

    def on_request(self, verb: str, resource: str, code: int) -> None:
        """A request to the API server was answered (code 0: it was not)."""
        self.requests.labels(verb, resource, str(code)).inc()

    def on_post(self, code: int, seconds: float) -> None:
        """A progress post was answered."""
        self.posts.labels(str(code)).inc()
        self.post_seconds.observe(seconds)

    def watch(self, name: str, documentation: str, value: Callable[[], float]) -> None:
        """A gauge read at scrape time."""
        Gauge(name, documentation, registry=self.registry).set_function(value)


class JobCollector(Collector):
    """Series of every job, made at scrape time from what the watch knows: a job that is gone leaves no series. Only the leader has them."""

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
        jobs: Jobs = list(self._feed)
        info = GaugeMetricFamily("finetune_job_info", "1; what the job is.", labels=(*JOB_LABELS, "method", "uid"))
        phase = GaugeMetricFamily("finetune_job_phase", "1 for the phase the job is in.", labels=(*JOB_LABELS, "phase", "reason"))
        count = GaugeMetricFamily("finetune_jobs", "Jobs by phase.", labels=("phase",))
        totals = {each.value: 0 for each in Phase}
        for key, known in jobs:
            info.add_metric((key.namespace, key.name, known.method, known.uid), 1)
            phase.add_metric((key.namespace, key.name, known.phase, known.reason), 1)
            totals[known.phase] = totals.get(known.phase, 0) + 1
        for name, number in totals.items():
            count.add_metric((name or "New",), number)
        yield from (info, phase, count)
        yield from (self._family(jobs, name, text, read) for name, text, read in _PROGRESS)

    def _family(self, jobs: Jobs, name: str, text: str, read: Callable[[Known], float | None]) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=JOB_LABELS)
        for key, known in jobs:
            value = read(known)
            if value is not None:
                family.add_metric((key.namespace, key.name), value)
        return family


def _of_progress(name: str, factor: float = 1.0) -> Callable[[Known], float | None]:
    def read(known: Known) -> float | None:
        value = getattr(known.progress, name) if known.progress is not None else None
        return value * factor if value is not None else None

    return read


def _updated(known: Known) -> float | None:
    moment = known.updated_at
    return moment.timestamp() if moment is not None else None


_PROGRESS: tuple[tuple[str, str, Callable[[Known], float | None]], ...] = (
    ("finetune_job_progress_ratio", "Share of the training done, 0-1.", _of_progress("percent", 0.01)),
    ("finetune_job_step", "Optimizer steps done.", _of_progress("step")),
    ("finetune_job_steps_planned", "Optimizer steps planned.", _of_progress("total_steps")),
    ("finetune_job_loss", "Last training loss reported.", _of_progress("loss")),
    ("finetune_job_eval_loss", "Last evaluation loss reported.", _of_progress("eval_loss")),
    ("finetune_job_last_progress_timestamp_seconds", "When the trainer last said something new.", _updated),
    ("finetune_job_attempts", "Starts of the job's rank group.", lambda known: known.attempts),
    ("finetune_job_run", "Number of the job's current or last run.", lambda known: known.run),
)

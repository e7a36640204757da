"""Prometheus metrics of the operator about itself."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from finetune_api.contract import metrics as names

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class OperatorMetrics:
    """The operator's own metrics, in a registry of their own."""

    def __init__(self, version: str) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        Gauge(names.OPERATOR_INFO, names.OPERATOR_INFO.help, names.OPERATOR_INFO.labels, registry=self.registry).labels(version).set(1)
        self.reconciles = self._counter(names.RECONCILES)
        self.reconcile_seconds = self._histogram(names.RECONCILE_DURATION)
        self.requests = self._counter(names.API_REQUESTS)
        self.events = self._counter(names.WATCH_EVENTS)
        self.posts = self._counter(names.PROGRESS_POSTS)
        self.post_seconds = self._histogram(names.PROGRESS_POST_DURATION)
        self.notifications = self._counter(names.NOTIFICATIONS)
        for result in ("ok", "again", "error"):
            self.reconciles.labels(result)

    def on_result(self, _key: object, result: str, seconds: float) -> None:
        """A look at a job is over."""
        self.reconciles.labels(result).inc()
        self.reconcile_seconds.observe(seconds)

    def on_request(self, verb: str, resource: str, code: int) -> None:
        """A request to the API server was answered (code 0: it was not)."""
        self.requests.labels(verb, resource, str(code)).inc()

    def on_event(self, resource: str, kind: str) -> None:
        """A watch event arrived."""
        self.events.labels(resource, kind).inc()

    def on_post(self, code: int, seconds: float) -> None:
        """A progress post was answered."""
        self.posts.labels(str(code)).inc()
        self.post_seconds.observe(seconds)

    def on_notification(self, outcome: str) -> None:
        """The webhook was told of an event, or could not be."""
        self.notifications.labels(outcome).inc()

    def watch(self, metric: names.Metric, value: Callable[[], float]) -> None:
        """A gauge read at scrape time."""
        Gauge(metric, metric.help, registry=self.registry).set_function(value)

    def _counter(self, metric: names.Metric) -> Counter:
        return Counter(metric, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, metric: names.Metric) -> Histogram:
        return Histogram(metric, metric.help, metric.labels, buckets=_SECONDS, registry=self.registry)

"""The Prometheus endpoint of a pod: reads the board at each scrape, so that there is one state and no second bookkeeping."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.contract import metrics as names
from finetune_api.contract.run_config import JobIdentity
from finetune_trainer.supervisor.board import Board, Distribution

logger = logging.getLogger(__name__)

PROGRESS_GAUGES: dict[names.Metric, str] = {
    names.LOSS: "loss",
    names.EVAL_LOSS: "eval_loss",
    names.LEARNING_RATE: "learning_rate",
    names.GRAD_NORM: "grad_norm",
    names.TOKENS_PER_SECOND: "tokens_per_second",
    names.STEP: "step",
    names.TOTAL_STEPS: "total_steps",
    names.EPOCH: "epoch",
    names.STEP_DURATION: "step_seconds",
    names.GPU_MEMORY: "gpu_memory_bytes",
    names.MFU: "mfu",
    names.ATTEMPT: "attempt",
    names.RUN: "run",
}
"""Gauges read from the progress document: metric -> field."""
METHOD_GAUGES = {
    names.REWARD_MEAN: ("reward", "mean_reward"),
    names.REWARD_STD: ("reward_std",),
    names.KL: ("kl",),
    names.PREFERENCE_ACCURACY: ("rewards/accuracies", "accuracy"),
}
"""Series with names of their own (H-09): metric -> the trainer's names of the number, which differ between methods."""
MEASURED_GAUGES = (
    names.CHECKPOINT_SAVE_DURATION,
    names.CHECKPOINT_UPLOAD_DURATION,
    names.CHECKPOINT_BYTES,
    names.CHECKPOINT_LAST_STEP,
    names.CHECKPOINT_LAST_SUCCESS,
    names.STALLED,
    names.LAST_HEADWAY,
    names.MISSING_PARTS,
)
HISTOGRAMS = (names.STEP_SECONDS, names.CHECKPOINT_SAVE_SECONDS, names.CHECKPOINT_UPLOAD_SECONDS)
COUNTERS = (names.CHECKPOINT_STALL, names.CHECKPOINTS_SKIPPED, names.UPLOAD_ERRORS)


class BoardCollector(Collector):
    """Turns a board into metric families."""

    def __init__(self, board: Board, job: JobIdentity) -> None:
        self._board = board
        self._job = (job.namespace, job.name)

    def collect(self) -> Iterator[Metric]:
        """Read the board once."""
        progress, values = self._board.snapshot(), self._board.values()
        for metric, field in PROGRESS_GAUGES.items():
            value: float | None = getattr(progress, field)
            if value is not None:
                yield self._gauge(metric, value)
        yield from self._method_metrics(progress.metrics)
        for metric in MEASURED_GAUGES:
            if metric in values:
                yield self._gauge(metric, values[metric])
        for metric in COUNTERS:
            yield self._counter(metric, {(): values.get(metric, 0.0)})
        durations = self._board.durations()
        for metric in HISTOGRAMS:
            if metric in durations:
                yield self._histogram(metric, durations[metric])
        if progress.tokens_seen is not None:
            yield self._counter(names.TOKENS_TOTAL, {(): progress.tokens_seen})
        yield self._gauge(names.PHASE, 1, progress.phase)
        if progress.usage is not None:
            yield self._counter(names.USAGE_SECONDS, {(use,): seconds for use, seconds in progress.usage.model_dump().items()})

    def _method_metrics(self, metrics: Mapping[str, float]) -> Iterator[Metric]:
        for metric, sources in METHOD_GAUGES.items():
            known = next((source for source in sources if source in metrics), None)
            if known is not None:
                yield self._gauge(metric, metrics[known])

    def _gauge(self, metric: names.Metric, value: float, *labels: str) -> Metric:
        family = GaugeMetricFamily(metric, metric.help, labels=metric.labels)
        family.add_metric([*self._job, *labels], value)
        return family

    def _histogram(self, metric: names.Metric, distribution: Distribution) -> Metric:
        family = HistogramMetricFamily(metric, metric.help, labels=metric.labels)
        family.add_metric(self._job, distribution.buckets, distribution.sum)
        return family

    def _counter(self, metric: names.Metric, values: Mapping[tuple[str, ...], float]) -> Metric:
        family = CounterMetricFamily(metric, metric.help, labels=metric.labels)
        for labels, value in values.items():
            family.add_metric([*self._job, *labels], value)
        return family


def serve_metrics(board: Board, job: JobIdentity, port: int) -> int | None:
    """Serve ``/metrics`` on a port (0 = any free one); returns the port, None when it is taken: training goes on without."""
    registry = CollectorRegistry()
    registry.register(BoardCollector(board, job))
    try:
        server, _ = start_http_server(port, registry=registry)
    except OSError as error:
        logger.warning("no metrics endpoint on port %s: %s", port, error.strerror)
        return None
    return int(server.server_port)

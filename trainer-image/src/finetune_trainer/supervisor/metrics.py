"""The Prometheus endpoint of a pod: reads the board at each scrape, so that there is one state and no second bookkeeping."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from finetune_api.contract import metrics as names
from finetune_api.contract.run_config import JobIdentity
from finetune_trainer.supervisor.board import Board

logger = logging.getLogger(__name__)

PROGRESS_GAUGES = {
    names.LOSS: ("loss", "Training loss, last reading"),
    names.EVAL_LOSS: ("eval_loss", "Evaluation loss, last evaluation"),
    names.LEARNING_RATE: ("learning_rate", "Learning rate"),
    names.GRAD_NORM: ("grad_norm", "Gradient norm before clipping"),
    names.TOKENS_PER_SECOND: ("tokens_per_second", "Tokens trained per second, all ranks"),
    names.STEP: ("step", "Optimizer steps done"),
    names.TOTAL_STEPS: ("total_steps", "Optimizer steps planned"),
    names.EPOCH: ("epoch", "Passes over the data done"),
    names.STEP_DURATION: ("step_seconds", "Duration of the last optimizer step"),
    names.ATTEMPT: ("attempt", "Number of the attempt"),
    names.RUN: ("run", "Number of the run"),
}
MEASURED_GAUGES = {
    names.CHECKPOINT_SAVE_DURATION: "Duration of the last save to local disk",
    names.CHECKPOINT_UPLOAD_DURATION: "Duration of the last upload of a checkpoint",
    names.CHECKPOINT_BYTES: "Size of the last committed checkpoint",
    names.CHECKPOINT_LAST_STEP: "Step of the last committed checkpoint",
    names.CHECKPOINT_LAST_SUCCESS: "When the last checkpoint was committed",
}
COUNTERS = {
    names.CHECKPOINT_STALL: "Time training waited for saves",
    names.CHECKPOINTS_SKIPPED: "Saves replaced by a newer one or without space",
    names.UPLOAD_ERRORS: "Failed tries to upload a checkpoint",
}


class BoardCollector(Collector):
    """Turns a board into metric families."""

    def __init__(self, board: Board, job: JobIdentity) -> None:
        self._board = board
        self._values = (job.namespace, job.name)

    def collect(self) -> Iterator[Metric]:
        """Read the board once."""
        progress, values = self._board.snapshot(), self._board.values()
        for name, (field, text) in PROGRESS_GAUGES.items():
            value: float | None = getattr(progress, field)
            if value is not None:
                yield self._gauge(name, text, value)
        for name, text in MEASURED_GAUGES.items():
            if name in values:
                yield self._gauge(name, text, values[name])
        for name, text in COUNTERS.items():
            yield self._counter(name, text, values.get(name, 0.0))
        if progress.tokens_seen is not None:
            yield self._counter(names.TOKENS_TOTAL, "Tokens trained, all attempts", progress.tokens_seen)
        phase = GaugeMetricFamily(names.PHASE, "1 for the current phase", labels=[*names.LABELS, "phase"])
        phase.add_metric([*self._values, progress.phase], 1)
        yield phase
        if progress.usage is not None:
            usage = CounterMetricFamily(names.USAGE_SECONDS, "Wall time of the rank group by use", labels=[*names.LABELS, "use"])
            for use, seconds in progress.usage.model_dump().items():
                usage.add_metric([*self._values, use], seconds)
            yield usage

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=names.LABELS)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(name, text, labels=names.LABELS)
        family.add_metric(self._values, value)
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

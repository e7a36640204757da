"""One table of metrics: named by Prometheus' rules, served as it says, nothing beside it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from finetune_api.contract import metrics
from finetune_api.contract.metrics import Kind, Metric
from finetune_api.contract.run_config import JobIdentity
from finetune_api.contract.store import UsageSeconds
from finetune_api.metrics_reference import metrics_reference, series
from finetune_operator.feed import JobFeed
from finetune_operator.job_metrics import GAUGES, JobCollector, JobHistory
from finetune_operator.metrics import OperatorMetrics
from finetune_operator.shown import CONFIG_PATHS
from finetune_trainer.supervisor.board import Board
from finetune_trainer.supervisor.metrics import COUNTERS, HISTOGRAMS, MEASURED_GAUGES, PROGRESS_GAUGES, BoardCollector
from tests.support.fake_api import START

UNITS = ("_seconds", "_bytes", "_ratio", "_total", "_info", "_timestamp_seconds")
COUNTS = {
    "loss", "rate", "norm", "second", "step", "planned", "epoch", "attempt", "attempts", "run", "pods", "gpus", "phase", "warning", "depth",
    "pending", "known", "leader", "jobs", "stalled", "mean", "std", "kl", "parts", "balance",
    "reserved", "settled", "quota", "checkpoints",
}  # fmt: skip
"""Last words of names of numbers without a unit."""


def test_every_metric_is_in_one_group() -> None:
    named = {name: value for name, value in vars(metrics).items() if isinstance(value, Metric)}
    assert len(metrics.ALL) == len(set(metrics.ALL))
    assert set(named.values()) == set(metrics.ALL)


@pytest.mark.parametrize("metric", metrics.ALL, ids=str)
def test_names_follow_prometheus_rules(metric: Metric) -> None:
    """Prefix, base unit, _total for counters only; no label that a scrape overwrites or that has no bound."""
    assert metric.startswith("finetune_")
    assert metric == metric.lower()
    assert metric.endswith("_total") == (metric.kind is Kind.COUNTER)
    assert metric.endswith(UNITS) or metric.rpartition("_")[2] in COUNTS
    assert metric.kind is not Kind.HISTOGRAM or metric.endswith("_seconds")
    assert not {"job", "instance", "namespace", "pod", "le", "name", "step", "message", "uid"} & set(metric.labels)
    assert not metric.help.endswith(".")


def families(*collectors: Collector, registry: CollectorRegistry | None = None) -> dict[str, tuple[str, str]]:
    registry = registry or CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return {
        family.name + ("_total" if family.type == "counter" else ""): (family.type, family.documentation)
        for family in registry.collect()
        if family.name.startswith("finetune_")
    }


def described(table: tuple[Metric, ...]) -> dict[str, tuple[str, str]]:
    return {str(metric): (metric.kind.value, metric.help) for metric in table}


def test_the_trainer_serves_the_table() -> None:
    board = Board(run=1)
    values = dict.fromkeys(PROGRESS_GAUGES.values(), 1)
    board.update(**values, tokens_seen=5, usage=UsageSeconds(), metrics={"reward": 1.0, "reward_std": 0.1, "kl": 0.2, "accuracy": 0.9})
    for metric in (*MEASURED_GAUGES, *COUNTERS):
        board.measure(metric, 1)
    for metric in HISTOGRAMS:
        board.observe(metric, 1)
    collector = BoardCollector(board, JobIdentity(name="job", namespace="team", uid="1"))
    assert families(collector) == described(metrics.TRAINER)
    for family in collector.collect():
        for sample in family.samples:
            assert sample.labels.items() >= {"finetune_namespace": "team", "finetune_job": "job"}.items()


def test_the_operator_serves_the_table() -> None:
    own = OperatorMetrics("1")
    JobHistory(own.registry, is_leader=lambda: True, now=lambda: START)
    for metric in (metrics.LEADER, metrics.QUEUE_DEPTH, metrics.QUEUE_OLDEST, metrics.PROGRESS_PENDING, metrics.PROGRESS_OLDEST):
        own.watch(metric, lambda: 0.0)
    own.watch(metrics.JOBS_KNOWN, lambda: 0.0)
    feed = JobFeed(lambda _key, _delay: None, lambda _key: None)
    served = families(JobCollector(feed, is_leader=lambda: True), registry=own.registry)
    assert served == described((*metrics.PER_JOB, *metrics.FLEET, *metrics.OPERATOR))
    assert set(GAUGES) < set(metrics.PER_JOB)
    assert set(CONFIG_PATHS) == set(metrics.CONFIG_LABELS)


def test_the_label_budget_holds() -> None:
    """A thousand jobs stay a small load for one Prometheus; the page says how many series that is."""
    assert series(metrics.PER_JOB) <= 32
    assert series(metrics.TRAINER) <= 77
    assert series(metrics.FLEET) + series(metrics.OPERATOR) <= 640
    assert f"at most {series(metrics.PER_JOB)};" in metrics_reference()

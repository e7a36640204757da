"""Durations as histograms: whole distributions, beside the gauges of the last value."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from finetune_api.contract import metrics as names
from finetune_api.contract.run_config import JobIdentity
from finetune_trainer.protocol import StepReport
from finetune_trainer.supervisor.board import BUCKETS, Board, Distribution
from finetune_trainer.supervisor.metrics import BoardCollector


def test_buckets_are_cumulative_and_end_with_all() -> None:
    distribution = Distribution()
    for seconds in (0.01, BUCKETS[0], BUCKETS[0] * 1.01, 1e6):
        distribution.add(seconds)
    bounds, counts = zip(*distribution.buckets, strict=True)
    assert counts[:2] == (2, 3)
    assert list(counts) == sorted(counts)
    assert (bounds[-1], counts[-1]) == ("+Inf", 4)
    assert distribution.sum == 0.01 + BUCKETS[0] + BUCKETS[0] * 1.01 + 1e6


def test_the_page_has_histogram_and_gauge() -> None:
    board = Board(run=1)
    for step in (1, 2):
        board.step(StepReport(step=step, total_steps=9, epoch=0.1, step_seconds=0.7 * step))
    registry = CollectorRegistry()
    registry.register(BoardCollector(board, JobIdentity(name="job", namespace="team", uid="u")))
    page = generate_latest(registry).decode()
    labels = 'finetune_job="job",finetune_namespace="team"'
    assert f"{names.STEP_DURATION}{{{labels}}} 1.4" in page
    assert f"{names.STEP_SECONDS}_count{{{labels}}} 2.0" in page
    assert f'{names.STEP_SECONDS}_bucket{{{labels},le="0.8"}} 1.0' in page

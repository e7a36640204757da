"""What this pod knows about the training right now; every thread reads and writes it, the reporter and the metrics endpoint show it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract import metrics as names
from finetune_api.contract.progress import CheckpointReport, FineTuneProgress
from finetune_api.contract.store import CheckpointRef
from finetune_trainer.protocol import StepReport, Used
from finetune_trainer.supervisor.usage import UsageLedger

KEPT_CHECKPOINTS = 5


BUCKETS = tuple(0.05 * 4**power for power in range(9))
"""Upper bounds of durations: 50 ms to one hour, each four times the one before; few, since every job has them."""


class Distribution:
    """How often a duration fell into which bucket, in this pod's life. Not thread-safe."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self._counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def copy(self) -> Distribution:
        """Return it as it is now."""
        same = Distribution()
        same._counts, same.sum = list(self._counts), self.sum
        return same

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """(upper bound, how many were at most that), the last one without bound."""
        bounds = [*(f"{bound:g}" for bound in BUCKETS), "+Inf"]
        return list(zip(bounds, map(float, accumulate(self._counts)), strict=True))


class Board:
    """A thread-safe progress document and a few counters."""

    def __init__(self, *, run: int, ledger: UsageLedger | None = None) -> None:
        """``ledger`` counts the seconds of the group (pod 0)."""
        self.ledger = ledger
        self._lock = threading.Lock()
        self._progress = FineTuneProgress(contract_version=CONTRACT_VERSION, run=run, attempt=0, phase="Starting")
        self.counters: dict[str, float] = {}
        """Metric name -> value, of metrics that are no part of the progress document."""
        self._durations: defaultdict[str, Distribution] = defaultdict(Distribution)
        self.on_change: Callable[[], None] = lambda: None

    def snapshot(self) -> FineTuneProgress:
        """Return the current state."""
        with self._lock:
            progress = self._progress
        return progress if self.ledger is None else progress.model_copy(update={"usage": self.ledger.total()})

    def update(self, **changes: Any) -> None:
        """Set fields of the progress document."""
        with self._lock:
            self._progress = self._progress.model_copy(update=changes)

    def count(self, name: str, amount: float = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self.counters[name] = self.counters.get(name, 0) + amount

    def measure(self, name: str, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self.counters[name] = value

    def observe(self, name: str, seconds: float) -> None:
        """Add to a histogram of durations."""
        with self._lock:
            self._durations[name].add(seconds)

    def durations(self) -> dict[str, Distribution]:
        """Histograms as they are now."""
        with self._lock:
            return {name: distribution.copy() for name, distribution in self._durations.items()}

    def values(self) -> dict[str, float]:
        """Counters and gauges."""
        with self._lock:
            return dict(self.counters)

    def settle(self, used: Used) -> None:
        """Take over where rank 0's seconds went (pod 0)."""
        if self.ledger is not None:
            self.ledger.settle(used.usage, used.until)

    def step(self, report: StepReport) -> None:
        """Take over a step; values that are read only now and then stay until the next reading."""
        fields = report.model_dump(exclude={"type", "replayed", "metrics"}, exclude_none=True)
        self.update(phase="Training", counter=report.step, **fields)
        self.learn_metrics(report.metrics or {})
        if report.step_seconds is not None:
            self.observe(names.STEP_SECONDS, report.step_seconds)

    def learn_metrics(self, metrics: dict[str, float]) -> None:
        """Add numbers of the method; those not named stay."""
        with self._lock:
            self._progress = self._progress.model_copy(update={"metrics": {**self._progress.metrics, **metrics}})

    def warn(self, condition: str, message: str) -> None:
        """Set or, with an empty message, clear a warning."""
        with self._lock:
            others = {key: text for key, text in self._progress.warnings.items() if key != condition}
            warnings = {**others, condition: message[:1000]} if message else others
            self._progress = self._progress.model_copy(update={"warnings": warnings})

    def learn(self, facts: dict[str, str]) -> None:
        """Add facts."""
        with self._lock:
            self._progress = self._progress.model_copy(update={"facts": {**self._progress.facts, **facts}})

    def acknowledge(self, command_id: str) -> None:
        """Say that a command was carried out."""
        with self._lock:
            known = self._progress.acknowledged
            self._progress = self._progress.model_copy(update={"acknowledged": [*known, command_id][-10:]})

    def add_checkpoint(self, report: CheckpointReport) -> None:
        """Add a committed checkpoint."""
        with self._lock:
            reports = [*self._progress.checkpoints, report][-KEPT_CHECKPOINTS:]
            saved = self._progress.checkpoints_saved + 1
            self._progress = self._progress.model_copy(update={"checkpoints": reports, "checkpoints_saved": saved})

    def newest_checkpoint(self) -> CheckpointRef | None:
        """Newest complete checkpoint known: committed by this attempt, else the one it started from."""
        progress = self.snapshot()
        if progress.checkpoints:
            newest = progress.checkpoints[-1]
            return CheckpointRef(attempt=newest.attempt, step=newest.step)
        return progress.parent

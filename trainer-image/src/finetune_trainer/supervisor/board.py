"""What this pod knows about the training right now; every thread reads and writes it, the reporter and the metrics endpoint show it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.progress import CheckpointReport, FineTuneProgress
from finetune_api.contract.store import CheckpointRef, UsageSeconds
from finetune_trainer.protocol import StepReport

KEPT_CHECKPOINTS = 5


class Board:
    """A thread-safe progress document and a few counters."""

    def __init__(self, *, run: int) -> None:
        self._lock = threading.Lock()
        self._progress = FineTuneProgress(contract_version=CONTRACT_VERSION, run=run, attempt=0, phase="Starting")
        self.counters: dict[str, float] = {}
        """Metric name -> value, of metrics that are no part of the progress document."""
        self.on_change: Callable[[], None] = lambda: None

    def snapshot(self) -> FineTuneProgress:
        """Return the current state."""
        with self._lock:
            return self._progress

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

    def values(self) -> dict[str, float]:
        """Counters and gauges."""
        with self._lock:
            return dict(self.counters)

    def step(self, report: StepReport) -> None:
        """Take over a step; values that are read only now and then stay until the next reading."""
        fields = report.model_dump(exclude={"type", "replayed"}, exclude_none=True)
        self.update(phase="Training", counter=report.step, **fields)

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
            self._progress = self._progress.model_copy(update={"checkpoints": reports})

    def newest_checkpoint(self) -> CheckpointRef | None:
        """Newest complete checkpoint known: committed by this attempt, else the one it started from."""
        progress = self.snapshot()
        if progress.checkpoints:
            newest = progress.checkpoints[-1]
            return CheckpointRef(attempt=newest.attempt, step=newest.step)
        return progress.parent

    @property
    def usage(self) -> UsageSeconds | None:
        """Wall seconds by use, as last told by rank 0."""
        return self.snapshot().usage

"""Live figures of a local run, read from the metrics endpoint of pod 0 (the same one Prometheus scrapes in a cluster)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import urllib3
from prometheus_client.parser import text_string_to_metric_families

from finetune_api.contract import metrics as names

READ_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Figures:
    """One reading."""

    values: dict[str, float]
    """Metric name -> value; names of :mod:`finetune_api.contract.metrics`."""
    phase: str
    """What the trainer does, a :data:`finetune_api.contract.progress.TrainerPhase`."""

    def whole(self, name: str) -> int:
        """A figure that counts; 0 while it is unknown."""
        return int(self.values.get(name, 0))


NOTHING = Figures({}, "Starting")


class Source(Protocol):
    """Where figures come from."""

    def read(self) -> Figures | None:
        """The newest figures; None when there is no answer now."""


class MetricsEndpoint:
    """``/metrics`` of a pod on this machine."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"
        self._http = urllib3.PoolManager(timeout=urllib3.Timeout(READ_SECONDS), retries=False)

    def read(self) -> Figures | None:
        """Scrape once; None while the pod does not listen yet, or no longer."""
        try:
            response = self._http.request("GET", self._url)
        except urllib3.exceptions.HTTPError:
            return None
        return parse_figures(response.data.decode()) if response.status == 200 else None


def parse_figures(text: str) -> Figures:
    """Read the exposition format."""
    values: dict[str, float] = {}
    phase = NOTHING.phase
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == names.PHASE:
                phase = sample.labels["phase"]
            elif "use" not in sample.labels:
                values[sample.name] = sample.value
    return Figures(values, phase)

"""What there is to say of the Datasets that jobs name, to the operator and on the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.constants import DATASET_KIND
from finetune_api.models.dataset import DatasetPhase, DatasetStatus
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.problems import Problem
from finetune_api.resolve import DATASET_URI


def rows_of(spec: FineTuneJobSpec, status: DatasetStatus | None) -> int | None:
    """Rows that a job uses of the Dataset it names; None where the look at it did not count them all, or others come to them."""
    if status is None or not status.examples or status.is_whole is False or spec.dataset.additional:
        return None
    most = spec.dataset.max_samples
    return min(status.examples, most) if most > 0 else status.examples


def not_ready(name: str, dataset: Mapping[str, Any]) -> Problem | None:
    """Why no job may begin to train on a Dataset, if so: its own word, and how to look (D-04, AC-47)."""
    metadata, status = dataset.get("metadata") or {}, dataset.get("status") or {}
    is_current = status.get("observedGeneration") == metadata.get("generation")
    if is_current and status.get("phase") == DatasetPhase.READY:
        return None
    ready: Mapping[str, Any] = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    phase = status.get("phase", DatasetPhase.PENDING) if is_current else DatasetPhase.PENDING
    says = str(ready.get("message") or "").rstrip(".") if is_current else "nobody has looked at its present spec yet"
    return Problem(
        f"spec.{DATASET_URI}",
        f"ref:{name}",
        f"ref:{name}: the {DATASET_KIND} is {phase}{f' ({says})' if says else ''}; the job goes on when it is {DatasetPhase.READY.value}; "
        f"look with kubectl describe dataset {name}",
    )

"""What metrics show of a job beside its live progress, trimmed from the object when its event arrives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from finetune_api.contract.metrics import CONFIG_LABELS
from finetune_api.models.status import CheckpointsStatus, ConditionType, UsageStatus
from finetune_operator.plan.observed import Manifest, parse_time

MAX_LABEL_CHARS = 128
CONFIG_PATHS: Final[Mapping[str, str]] = {
    "method": "method",
    "model": "model.uri",
    "dataset": "dataset.uri",
    "adapter": "adapter.type",
    "rank": "adapter.rank",
    "learning_rate": "training.learningRate",
    "epochs": "training.epochs",
    "max_steps": "training.maxSteps",
    "batch_size": "training.batchSize",
    "grad_accum_steps": "training.gradAccumSteps",
    "max_seq_length": "training.maxSeqLength",
    "optimizer": "training.optimizer",
    "strategy": "distributed.strategy",
    "seed": "training.seed",
    "replicas": "replicas",
}
"""Label of the configuration -> field of the spec; method is the built-in one or the TrainingMethod."""


@dataclass(frozen=True, slots=True)
class Shown:
    """A job's configuration and the facts of its status that metrics show."""

    config: tuple[str, ...]
    """Values of :data:`finetune_api.contract.metrics.CONFIG_LABELS`."""
    warnings: tuple[str, ...]
    """Types of the warning conditions that hold."""
    pods: int
    device: str
    """What its usage is the time of: gpu or cpu."""
    gpus: int
    created: datetime | None
    run_started: datetime | None
    finished: datetime | None
    checkpoint_step: int | None
    checkpoint_time: datetime | None
    usage: UsageStatus
    ended: tuple[int, str] | None
    """Run and outcome of the last attempt, once it has ended."""


def read_shown(manifest: Manifest) -> Shown:
    """Read what is shown from a FineTuneJob."""
    spec, status = manifest.get("spec") or {}, manifest.get("status") or {}
    latest = CheckpointsStatus.model_validate(status.get("checkpoints") or {}).latest
    attempts = status.get("attempts") or ()
    last = attempts[-1] if attempts else {}
    pods = status.get("replicas", 0)
    resources = spec.get("resources") or {}
    resolved = status.get("resolved") or {}
    device = resources.get("device") or _resolved(resolved, "resources.device") or "gpu"
    per_pod = resources.get("gpusPerReplica") or _resolved(resolved, "resources.gpusPerReplica") or "1"
    return Shown(
        config=tuple(_label(spec, resolved, label) for label in CONFIG_LABELS),
        warnings=_warnings(status),
        pods=pods,
        device=device,
        gpus=pods * int(per_pod) if device == "gpu" else 0,
        created=parse_time(manifest["metadata"].get("creationTimestamp")),
        run_started=parse_time(last.get("startedAt")),
        finished=parse_time(status.get("finishedAt")),
        checkpoint_step=latest.step if latest is not None else None,
        checkpoint_time=parse_time(latest.created_at) if latest is not None else None,
        usage=UsageStatus.model_validate(status.get("usage") or {}),
        ended=(last.get("run", 0), last["outcome"]) if last.get("outcome") else None,
    )


def _label(spec: Mapping[str, Any], resolved: Mapping[str, Any], label: str) -> str:
    own = _configured(spec, resolved, "methodRef.name") if label == "method" else ""
    if label in ("model", "dataset"):  # an address, also where the job names a BaseModel or Dataset
        own = _resolved(resolved, CONFIG_PATHS[label])[:MAX_LABEL_CHARS]
    return own or _configured(spec, resolved, CONFIG_PATHS[label])


def _configured(spec: Mapping[str, Any], resolved: Mapping[str, Any], path: str) -> str:
    """A field as the job wrote it, else as it was resolved, else empty."""
    value: Any = spec
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    text = str(value) if value is not None else _resolved(resolved, path)
    return text[:MAX_LABEL_CHARS]


def _resolved(resolved: Mapping[str, Any], path: str) -> str:
    return str((resolved.get(path) or {}).get("value", ""))


def _warnings(status: Mapping[str, Any]) -> tuple[str, ...]:
    """Conditions beyond the fixed set are warnings of operator and trainer."""
    return tuple(c["type"] for c in status.get("conditions") or () if c.get("status") == "True" and c["type"] not in _FIXED)


_FIXED = frozenset(kind.value for kind in ConditionType)

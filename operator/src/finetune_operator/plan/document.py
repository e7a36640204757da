"""The status as it is stored, and how it is kept small: etcd pays for every byte at every write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from finetune_api.models.status import Condition, FineTuneJobStatus
from finetune_operator.plan.observed import Manifest

MAX_STATUS_BYTES = 8192
"""What a stored status may weigh at rest, ``progress`` included."""

ALWAYS_WRITTEN = {"phase", "run", "replicas", "last_replicas", "attempt_count", "observed_generation"}
"""Fields that columns, /scale and kstatus read; all others are left out while they have their default: etcd pays for every byte."""


def status_document(status: FineTuneJobStatus) -> Manifest:
    """The status as stored, without ``progress`` (another writer's) and without defaults and empty parts."""
    document = status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True, exclude={"progress"})
    compact = _without_empty(document)
    assert isinstance(compact, dict)
    return {**compact, **status.model_dump(mode="json", by_alias=True, include=ALWAYS_WRITTEN)}


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        items = {key: _without_empty(item) for key, item in value.items()}
        return {key: item for key, item in items.items() if item not in ({}, [])}
    if isinstance(value, list):
        return [_without_empty(item) for item in value]
    return value


def weight(document: object) -> int:
    """Bytes of a document as JSON."""
    return len(json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode())


def fit_status(status: FineTuneJobStatus, progress: Manifest) -> FineTuneJobStatus:
    """The status, shortened step by step until it and the stored ``progress`` weigh at most :data:`MAX_STATUS_BYTES`.

    With the longest names and full lists it can stay above that (a test holds the fullest below 22 KB). What decisions remember (levers,
    budgets, clocks, the newest checkpoint and attempts, which values were resolved) is never dropped; the whole is in the store and in the
    run's ConfigMap.
    """
    most = MAX_STATUS_BYTES - weight({"progress": progress})
    for shorten in _steps():
        if weight(status_document(status)) <= most:
            break
        status = shorten(status)
    return status


def _steps() -> Iterator[Callable[[FineTuneJobStatus], FineTuneJobStatus]]:
    """Ways to shorten, the least missed first."""
    yield lambda status: _shorter_failure(status, 1024)
    yield lambda status: _fewer(status, checkpoints=3, attempts=8)
    yield lambda status: _shorter_messages(status, 256)
    yield lambda status: _shorter_values(status, 48)
    yield lambda status: _fewer(status, checkpoints=2, attempts=6)
    yield lambda status: _shorter_failure(status, 512)
    yield lambda status: _shorter_facts(status, 20)
    yield lambda status: _shorter_messages(status, 128)
    yield lambda status: _fewer(status, checkpoints=1, attempts=4)
    yield lambda status: status.model_copy(update={"facts": {}})
    yield _without_digests
    yield lambda status: _shorter_values(status, 20)
    yield lambda status: _shorter_failure(status, 192)
    yield lambda status: _shorter_messages(status, 48)
    yield lambda status: _shorter_values(status, 12)
    yield lambda status: _fewer(status, checkpoints=0, attempts=2)


def _shorter_failure(status: FineTuneJobStatus, most: int) -> FineTuneJobStatus:
    failure = status.failure
    if failure is None:
        return status
    short = {"last_log_lines": failure.last_log_lines[-most:], "message": failure.message[:most], "advice": failure.advice[:most]}
    return status.model_copy(update={"failure": failure.model_copy(update=short)})


def _without_digests(status: FineTuneJobStatus) -> FineTuneJobStatus:
    """Digests of the forms of the result are in the store, too (``final/export.json``)."""
    outputs = [output.model_copy(update={"digest": None}) for output in status.artifacts.outputs]
    return status.model_copy(update={"artifacts": status.artifacts.model_copy(update={"outputs": outputs})})


def _fewer(status: FineTuneJobStatus, *, checkpoints: int, attempts: int) -> FineTuneJobStatus:
    ledger = status.checkpoints.model_copy(update={"recent": status.checkpoints.recent[-checkpoints:] if checkpoints else []})
    return status.model_copy(update={"checkpoints": ledger, "attempts": status.attempts[-attempts:]})


def _shorter_messages(status: FineTuneJobStatus, most: int) -> FineTuneJobStatus:
    """Conditions that hold keep twice as much; so do other sentences."""

    def short(condition: Condition) -> Condition:
        length = 2 * most if condition.status == "True" else most
        return condition.model_copy(update={"message": _cut(condition.message, length)})

    estimate = status.estimate
    if estimate is not None and estimate.memory is not None:
        memory = estimate.memory.model_copy(update={"reason": _cut(estimate.memory.reason, 2 * most)})
        estimate = estimate.model_copy(update={"memory": memory})
    hold = status.hold.model_copy(update={"message": _cut(status.hold.message, max(2 * most, 128))}) if status.hold is not None else None
    spoken = [short(condition) for condition in status.conditions]
    return status.model_copy(update={"conditions": spoken, "hold": hold, "estimate": estimate})


def _shorter_values(status: FineTuneJobStatus, most: int) -> FineTuneJobStatus:
    resolved = {
        path: entry.model_copy(update={"value": _cut(entry.value, most), "name": _cut(entry.name, most) if entry.name else None})
        for path, entry in status.resolved.items()
    }
    return _shorter_facts(status.model_copy(update={"resolved": resolved}), most)


def _shorter_facts(status: FineTuneJobStatus, most: int) -> FineTuneJobStatus:
    return status.model_copy(update={"facts": {name: _cut(value, most) for name, value in status.facts.items()}})


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"

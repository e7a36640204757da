"""What the watch last said of each Dataset: which events are worth a look, and which jobs wait for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

from finetune_api.constants import LABEL_DATASET
from finetune_operator.cluster.datasets import DatasetKey
from finetune_operator.cluster.observe import JobKey
from finetune_operator.feed import CHILD_DELAY_SECONDS, EventType, trigger_of
from finetune_operator.plan.observed import Manifest

Mark = Callable[[JobKey | DatasetKey, float], None]


class _Known(NamedTuple):
    """A Dataset as last seen."""

    uid: str
    trigger: int
    """Hash of what makes it worth a reconcile."""
    standing: tuple[Any, ...]
    """What jobs that name it depend on."""


class DatasetFeed:
    """The Datasets this replica knows of. ``mark`` is told of each that should be looked at, and of the jobs that wait for it."""

    def __init__(self, mark: Mark, forget: Callable[[DatasetKey], None], *, waiting_for: Callable[[str, str], Iterable[JobKey]]) -> None:
        self._mark = mark
        self._forget = forget
        self._waiting_for = waiting_for
        self._known: dict[DatasetKey, _Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def keys(self) -> Collection[DatasetKey]:
        """All of them."""
        return list(self._known)

    def dataset_event(self, kind: EventType, manifest: Manifest) -> None:
        """A Dataset was listed, added, changed or deleted."""
        metadata = manifest["metadata"]
        key = DatasetKey(metadata["namespace"], metadata["name"])
        before = self._known.get(key)
        if kind == "DELETED":
            self.drop(key)
            self._wake_jobs(key)
            return
        now = _read(manifest)
        self._known[key] = now
        if before is None or (before.uid, before.trigger) != (now.uid, now.trigger):
            self._mark(key, 0.0)
        if before is None or before.standing != now.standing:
            self._wake_jobs(key)

    def child_event(self, manifest: Manifest) -> None:
        """A Job or pod with our label changed."""
        metadata = manifest["metadata"]
        name = (metadata.get("labels") or {}).get(LABEL_DATASET)
        key = DatasetKey(metadata["namespace"], name) if name else None
        if key is not None and key in self._known:
            self._mark(key, CHILD_DELAY_SECONDS)

    def drop(self, key: DatasetKey) -> None:
        """A Dataset is gone."""
        self._known.pop(key, None)
        self._forget(key)

    def _wake_jobs(self, key: DatasetKey) -> None:
        for job in self._waiting_for(key.namespace, key.name):
            self._mark(job, 0.0)


def _read(manifest: Manifest) -> _Known:
    metadata, status = manifest["metadata"], manifest.get("status") or {}
    ready: Mapping[str, Any] = next((c for c in status.get("conditions") or () if c.get("type") == "Ready"), {})
    standing = (metadata.get("generation"), status.get("observedGeneration"), status.get("phase"), ready.get("message"))
    return _Known(metadata["uid"], trigger_of(metadata), standing)

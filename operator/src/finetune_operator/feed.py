"""What the watch last said of each job, trimmed to what replies, metrics and the queue need; and which events are worth a reconcile."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal

from finetune_api.constants import LABEL_JOB
from finetune_api.models.status import FINAL_PHASES, PauseStatus, Phase, StatusProgress
from finetune_api.resolve import chosen_dataset
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.observe import JobKey
from finetune_operator.cluster.resources import FINETUNE_JOBS
from finetune_operator.plan.desire import Request, request_in
from finetune_operator.plan.observed import Manifest, parse_time
from finetune_operator.plan.report import Merged, News, news_in
from finetune_operator.plan.rest import DONE
from finetune_operator.shown import Shown, read_shown

EventType = Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"] | None
"""Of a watch event; None for an object of the first listing."""
CHILD_DELAY_SECONDS = 0.1
"""Changes of Jobs and pods come in bursts; one look serves them all."""
MAX_CHILD_DELAY_SECONDS = 5.0
"""When many jobs are created at once, their first looks come before those at what has become of the children."""

_AWAITING = (Phase.AWAITING_APPROVAL, Phase.AWAITING_BALANCE)


@dataclass(frozen=True, slots=True)
class Known:
    """A job as last seen."""

    uid: str
    trigger: int
    """Hash of what makes the job worth a reconcile: generation, labels, annotations, finalizers, deletion."""
    news: News
    """Of ``status.progress``: what any replica stored that decisions depend on; mere numbers are not among it."""
    phase: str
    reason: str
    run: int
    attempts: int
    settled: bool
    progress: StatusProgress | None
    pause: PauseStatus | None
    request: Request | None
    pause_policy: Mapping[str, Any]
    merged: Merged
    shown: Shown
    dataset: str | None = None
    """The Dataset it names itself, while it waits for its first run."""

    @property
    def updated_at(self) -> datetime | None:
        """When the trainer last said something new."""
        return parse_time(self.progress.updated_at) if self.progress is not None else None


OnChange = Callable[[JobKey, Known | None, Known | None], None]
"""Told of each event of a job: as it was known before, and as it is now; None for unknown and gone."""


def _ignore(_key: JobKey, _before: Known | None, _now: Known | None) -> None:
    """Nobody listens."""


class JobFeed:
    """The jobs this replica knows of. ``mark`` is told of every job that should be looked at, with a delay."""

    def __init__(
        self,
        mark: Callable[[JobKey, float], None],
        forget: Callable[[JobKey], None],
        *,
        on_change: OnChange = _ignore,
        lag: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """``lag``: by how many seconds the looks at jobs are late."""
        self._mark = mark
        self._forget = forget
        self._on_change = on_change
        self._lag = lag
        self._known: dict[JobKey, Known] = {}

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[tuple[JobKey, Known]]:
        return iter(list(self._known.items()))

    def get(self, key: JobKey) -> Known | None:
        """What is known of a job."""
        return self._known.get(key)

    def unsettled(self) -> list[JobKey]:
        """Jobs that may need something."""
        return [key for key, known in self._known.items() if not known.settled]

    def job_event(self, kind: EventType, manifest: Manifest) -> None:
        """A FineTuneJob was listed, added, changed or deleted."""
        metadata = manifest["metadata"]
        key = JobKey(metadata["namespace"], metadata["name"])
        if kind == "DELETED":
            self.drop(key)
            return
        before, now = self._known.get(key), read_known(manifest)
        self._known[key] = now
        self._on_change(key, before, now)
        if before is None:
            changed = not now.settled
        else:
            changed = (before.uid, before.trigger) != (now.uid, now.trigger) or not now.news <= before.news
        if changed:
            self._mark(key, 0.0)

    def noted(self, key: JobKey, news: News) -> None:
        """News of a job that were acted on already (this replica stored them itself): their event is no news."""
        known = self._known.get(key)
        if known is not None:
            self._known[key] = replace(known, news=known.news | news)

    def waiting_for(self, namespace: str, dataset: str) -> list[JobKey]:
        """Jobs that name a Dataset and have not run yet."""
        return [key for key, known in self._known.items() if known.dataset == dataset and key.namespace == namespace and not known.settled]

    def waiting_for_budget(self, namespace: str) -> list[tuple[JobKey, str]]:
        """Jobs that wait for their Budget's answer, or for approval by its rule, with their uids."""
        return [(key, known.uid) for key, known in self._known.items() if key.namespace == namespace and known.phase in _AWAITING]

    def drop(self, key: JobKey) -> None:
        """A job is gone."""
        self._on_change(key, self._known.pop(key, None), None)
        self._forget(key)

    def child_event(self, manifest: Manifest) -> None:
        """A Job or pod with our label changed."""
        metadata = manifest["metadata"]
        name = (metadata.get("labels") or {}).get(LABEL_JOB)
        key = JobKey(metadata["namespace"], name) if name else None
        if key is not None and key in self._known and not self._known[key].settled:
            self._mark(key, min(MAX_CHILD_DELAY_SECONDS, CHILD_DELAY_SECONDS + self._lag()))


class JobLookup:
    """A job as the watch knows it; read once where the watch is behind (a replica that has just started)."""

    def __init__(self, feed: JobFeed, client: Client) -> None:
        self._feed = feed
        self._client = client

    def known(self, key: JobKey) -> Known | None:
        """As the watch knows it."""
        return self._feed.get(key)

    async def find(self, key: JobKey) -> Known | None:
        """None: there is no such job. Raises :class:`finetune_operator.cluster.errors.ApiError`."""
        known = self._feed.get(key)
        if known is not None:
            return known
        manifest = await self._client.get(FINETUNE_JOBS, key.namespace, key.name)
        return read_known(manifest) if manifest is not None else None


def read_known(manifest: Manifest) -> Known:
    """Trim a FineTuneJob to what is kept of it."""
    metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
    annotations = metadata.get("annotations") or {}
    progress = StatusProgress.model_validate(status["progress"]) if status.get("progress") else None
    pause = PauseStatus.model_validate(status["pause"]) if status.get("pause") else None
    final = status.get("phase") in FINAL_PHASES
    recent = (status.get("checkpoints") or {}).get("recent") or ()
    return Known(
        uid=metadata["uid"],
        trigger=trigger_of(metadata),
        news=news_in(progress),
        phase=status.get("phase", ""),
        reason=status.get("reason", ""),
        run=status.get("run", 0),
        attempts=status.get("attemptCount", 0),
        settled=final
        and _is_cleared(status)
        and "deletionTimestamp" not in metadata
        and status.get("observedGeneration") == metadata.get("generation"),
        progress=progress.model_copy(update={"report": None}) if progress is not None else None,
        pause=pause,
        request=None if final else request_in(annotations, status.get("lastHandledRequest")),
        pause_policy=spec.get("pausePolicy") or {},
        merged=Merged()
        if final
        else Merged(frozenset((c["attempt"], c["step"], c.get("resumable", True)) for c in recent), dict(status.get("facts") or {})),
        shown=read_shown(manifest),
        dataset=chosen_dataset({"dataset": spec.get("dataset") or {}}) if not status.get("run") else None,
    )


def trigger_of(metadata: Mapping[str, Any]) -> int:
    """Hash of what makes an object worth a reconcile: generation, labels, annotations, finalizers, deletion."""
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return hash(
        (
            metadata.get("generation"),
            tuple(sorted(labels.items())),
            tuple(sorted(annotations.items())),
            tuple(metadata.get("finalizers") or ()),
            metadata.get("deletionTimestamp"),
        )
    )


def _is_cleared(status: Mapping[str, Any]) -> bool:
    return any(c.get("type") == "Reconciling" and c.get("reason") == DONE for c in status.get("conditions") or ())

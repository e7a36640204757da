"""What becomes of a post: stored in ``status.progress``, answered with commands.

Periodic numbers go through a token bucket shared by all jobs and may be skipped. What matters (stopped, finished, a new checkpoint, a new
attempt, a warning) is stored before the answer, so that a 200 is a promise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from finetune_api.constants import PROGRESS_FIELD_MANAGER
from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.progress import FineTuneProgress, ProgressPost, ProgressReply
from finetune_api.models.status import FineTuneJobStatus, StatusProgress
from finetune_operator.cluster.client import FINETUNEJOBS, Api
from finetune_operator.cluster.errors import ApiError, ConflictError
from finetune_operator.plan.commands import commands_of
from finetune_operator.plan.observed import JobObject
from finetune_operator.plan.report import report_of, significance
from finetune_operator.progress.bucket import TokenBucket
from finetune_operator.progress.tokens import Poster

log = logging.getLogger(__name__)
MAX_REMEMBERED = 20_000
NUMBERS = (
    "run", "attempt", "phase", "step", "total_steps", "epoch", "loss", "eval_loss", "learning_rate", "grad_norm", "tokens_per_second",
)  # fmt: skip
"""Fields of a post that ``status.progress`` has under the same name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """HTTP status and body of the answer to a post."""

    status: int
    reply: ProgressReply | None = None
    error: str = ""


class Intake:
    """Takes posts of authenticated trainers."""

    def __init__(
        self, api: Api, bucket: TokenBucket, min_write_seconds: float, clock: Callable[[], float], mark_dirty: Callable[[str, str], None]
    ) -> None:
        """``mark_dirty(namespace, name)`` is called after a write that matters; ``clock`` is monotonic seconds."""
        self._api, self._bucket, self._min_write_seconds, self._clock, self._mark_dirty = api, bucket, min_write_seconds, clock, mark_dirty
        self._written_at: dict[str, float] = {}

    async def take(self, poster: Poster, post: ProgressPost) -> Answer:
        """Store what the post says and tell the trainer what to do. Raises :class:`ApiError` when the API server does not answer."""
        manifest = await self._api.get(FINETUNEJOBS, poster.namespace, poster.job)
        if manifest is None or manifest["metadata"]["uid"] != poster.job_uid:
            return Answer(404, error=f"FineTuneJob {poster.namespace}/{poster.job} is gone")
        job = JobObject.from_manifest(manifest)
        said = post.finetune
        if said is not None and (refusal := _outdated(said, job.status)):
            return Answer(409, error=refusal)
        progress = progress_of(post, job.status, datetime.now(UTC))
        matters = significance(progress) != significance(job.status.progress)
        if matters or self._due(job.uid):
            if not await self._store(job, progress, matters=matters):
                return Answer(404, error=f"FineTuneJob {poster.namespace}/{poster.job} is gone")
            if matters:
                self._mark_dirty(job.namespace, job.name)
        return Answer(200, ProgressReply(contract_version=CONTRACT_VERSION, commands=list(commands_of(job))))

    def _due(self, uid: str) -> bool:
        """Whether periodic numbers of this job may be written now."""
        if self._clock() - self._written_at.get(uid, float("-inf")) < self._min_write_seconds:
            return False
        return self._bucket.take()

    async def _store(self, job: JobObject, progress: StatusProgress, *, matters: bool) -> bool:
        """Write ``status.progress``; False if the job is gone. A periodic write that fails is not worth an error."""
        patch: dict[str, Any] = {
            "metadata": {"uid": job.uid},
            "status": {"progress": progress.model_dump(by_alias=True, mode="json")},
        }
        try:
            stored = await self._api.merge_patch(
                FINETUNEJOBS, job.namespace, job.name, patch, manager=PROGRESS_FIELD_MANAGER, subresource="status"
            )
        except ConflictError:
            return False
        except ApiError as error:
            if matters:
                raise
            log.warning("progress not written: %s", error, extra={"namespace": job.namespace, "job": job.name})
            return True
        if len(self._written_at) > MAX_REMEMBERED:
            self._written_at.clear()
        self._written_at[job.uid] = self._clock()
        return stored is not None


def _outdated(said: FineTuneProgress, status: FineTuneJobStatus) -> str:
    """Why a post comes too late: a newer run or attempt is known. Empty when it does not."""
    if said.run < status.run:
        return f"run {status.run} has taken over from run {said.run}"
    known = status.progress.attempt if status.progress is not None else 0
    return f"attempt {known} has taken over from attempt {said.attempt}" if said.attempt < known else ""


def progress_of(post: ProgressPost, status: FineTuneJobStatus, now: datetime) -> StatusProgress:
    """``status.progress`` as the post has it. A stock client's post only moves percent, ETA and the metrics it names."""
    stock = post.trainer_status
    eta = stock.estimated_remaining_seconds
    shared = {
        "percent": min(100, max(0, stock.progress_percentage or 0)),
        "eta_seconds": eta,
        "eta": duration(eta) if eta is not None else None,
        "updated_at": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
    }
    said = post.finetune
    if said is None:
        before = status.progress or StatusProgress(run=status.run, phase="Training")
        metrics = {metric.name: _number(metric.value) for metric in stock.metrics}
        known = {name: metrics[name] for name in ("loss", "eval_loss", "learning_rate", "grad_norm") if metrics.get(name) is not None}
        return before.model_copy(update={**shared, **known})
    numbers = {name: getattr(said, name) for name in NUMBERS}
    return StatusProgress.model_validate({**numbers, **shared, "report": report_of(said, status)})


def duration(seconds: int) -> str:
    """Seconds for people: 42s, 6m12s, 1h23m, 2d3h."""
    minutes, second = divmod(max(0, seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if days:
        return f"{days}d{hour}h"
    if hours:
        return f"{hours}h{minute:02}m"
    return f"{minutes}m{second:02}s" if minutes else f"{second}s"


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None

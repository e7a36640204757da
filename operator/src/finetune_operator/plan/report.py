"""The part of a progress post that decisions need, kept as compact JSON in ``status.progress.report``.

The replica that got the post writes it (field manager finetune-progress); the reconciler reads it. What the status already holds is left
out, so that the string stays short however often it is written.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from pydantic import ValidationError

from finetune_api.contract.base import ContractModel
from finetune_api.contract.progress import CheckpointReport, FineTuneProgress, Finished, Stopped
from finetune_api.contract.store import BestCheckpoint, CheckpointRef, UsageSeconds
from finetune_api.models.status import StatusProgress

MAX_REPORT_CHARS = 6144
MAX_FACTS = 32
MAX_WARNINGS = 12


class Report(ContractModel):
    """What a post says beside the live numbers."""

    checkpoints: list[CheckpointReport] = []
    """Newest last."""
    checkpoints_saved: int = 0
    """How many the attempt has made complete."""
    best: BestCheckpoint | None = None
    parent: CheckpointRef | None = None
    lost_steps: int = 0
    facts: dict[str, str] = {}
    warnings: dict[str, str] = {}
    usage: UsageSeconds | None = None
    save_seconds: float | None = None
    upload_seconds: float | None = None
    stopped: Stopped | None = None
    finished: Finished | None = None
    acknowledged: list[str] = []


class Merged(NamedTuple):
    """What the status holds already."""

    checkpoints: frozenset[tuple[int, int, bool]] = frozenset()
    """(attempt, step, resumable) of ``status.checkpoints.recent``."""
    facts: Mapping[str, str] = {}


def report_of(post: FineTuneProgress, merged: Merged) -> str:
    """Compact JSON of what ``post`` says beyond what was merged, at most :data:`MAX_REPORT_CHARS`."""
    oldest = min(((attempt, step) for attempt, step, _ in merged.checkpoints), default=(0, 0))
    unknown = [c for c in post.checkpoints[-5:] if (c.attempt, c.step, c.resumable) not in merged.checkpoints]
    new = [c for c in unknown if (c.attempt, c.step) >= oldest]
    report = Report(
        checkpoints=[c.model_copy(update={"eval_loss": short(c.eval_loss)}) for c in new],
        checkpoints_saved=post.checkpoints_saved,
        best=post.best.model_copy(update={"value": short(post.best.value)}) if post.best is not None else None,
        parent=post.parent,
        lost_steps=post.lost_steps,
        facts={k[:64]: v[:256] for k, v in list(post.facts.items())[:MAX_FACTS] if merged.facts.get(k[:64]) != v[:256]},
        warnings={k[:64]: v[:512] for k, v in list(post.warnings.items())[:MAX_WARNINGS]},
        usage=UsageSeconds(**{name: round(value, 1) for name, value in post.usage.model_dump().items()})
        if post.usage is not None
        else None,
        save_seconds=short(post.save_seconds, 3),
        upload_seconds=short(post.upload_seconds, 3),
        stopped=post.stopped,
        finished=post.finished.model_copy(update={"metrics": _summary(post.finished.metrics)}) if post.finished is not None else None,
        acknowledged=post.acknowledged[-4:],
    )
    return _fitting(report)


def _summary(metrics: Mapping[str, float]) -> dict[str, float]:
    """Of the last metrics, the ones that the status keeps."""
    rounded = {name: short(metrics[name]) for name in ("eval_loss",) if name in metrics}
    return {name: value for name, value in rounded.items() if value is not None}


def short(value: float | None, digits: int = 6) -> float | None:
    """A number as short as is useful; NaN and infinity are no JSON."""
    return float(f"{value:.{digits}g}") if value is not None and math.isfinite(value) else None


def _fitting(report: Report) -> str:
    """The report without its least important parts when it would be too long."""
    drops: tuple[dict[str, object], ...] = (
        {},
        {"facts": {}},
        {"warnings": {}},
        {"checkpoints": report.checkpoints[-1:]},
        {"checkpoints": [], "best": None},
    )
    for drop in drops:
        report = report.model_copy(update=drop)
        text = report.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=True)
        if len(text) <= MAX_REPORT_CHARS:
            return text
    raise AssertionError("stopped, finished and parent have bounded sizes")


def read_report(progress: StatusProgress | None) -> Report:
    """The report in a job's status; an empty one where there is none or an other version wrote something else."""
    if progress is None or not progress.report:
        return Report()
    try:
        return Report.model_validate_json(progress.report)
    except ValidationError:
        return Report()


URGENT = frozenset({"attempt", "checkpoint", "stopped", "finished", "acknowledged"})
"""Kinds of news that are stored before the trainer gets its answer."""

News = frozenset[tuple[object, ...]]
"""What a report says that decisions may depend on; an item begins with its kind."""


def news_in(progress: StatusProgress | None) -> News:
    """What the stored progress tells the reconciler. Items that come are worth a reconcile, items that go were merged."""
    if progress is None:
        return frozenset()
    report = read_report(progress)
    return _news(progress.run, progress.attempt, progress.phase, report)


def news_of(post: FineTuneProgress) -> News:
    """What a post says, including what the status holds already."""
    report = Report(
        checkpoints=post.checkpoints,
        facts=post.facts,
        warnings=post.warnings,
        stopped=post.stopped,
        finished=post.finished,
        acknowledged=post.acknowledged,
    )
    return _news(post.run, post.attempt, post.phase, report)


def _news(run: int, attempt: int, phase: str, report: Report) -> News:
    items: list[tuple[object, ...]] = [
        ("attempt", run, attempt),
        ("activity", activity(phase)),
        ("warnings", *sorted(report.warnings.items())),
    ]
    items += [("checkpoint", c.attempt, c.step, c.resumable) for c in report.checkpoints]
    items += [("fact", name, value) for name, value in report.facts.items()]
    items += [("acknowledged", command) for command in report.acknowledged]
    if report.stopped is not None:
        items.append(("stopped", report.stopped.command_id))
    if report.finished is not None:
        items.append(("finished",))
    return frozenset(items)


def is_urgent(news: News) -> bool:
    """Whether any of it must be stored before it is answered."""
    return any(item[0] in URGENT for item in news)


def activity(phase: str) -> str:
    """The trainer's phase as coarse as the job's own: generating, saving and uploading are part of training."""
    return "Training" if phase in ("Generating", "Saving", "Uploading") else phase

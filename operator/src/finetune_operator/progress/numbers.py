"""From a trainer's post to ``status.progress``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from finetune_api.contract.progress import FineTuneProgress, ProgressPost, TrainerStatus
from finetune_api.models.status import StatusProgress
from finetune_operator.plan.observed import Manifest
from finetune_operator.plan.report import Merged, report_of, short

SHOWN_METRICS: Final = (
    *("reward", "reward_std", "kl", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"),
    *("logps/rejected", "mean_reward", "margin", "accuracy", "completions/mean_length", "completions/clipped_ratio", "entropy"),
)
"""Numbers of methods that status shows; pods serve all of them as metrics."""


MAX_METRICS = 16
"""Numbers of a program that status keeps beside those it has fields for."""
MAX_STOCK_METRICS = 256
"""Numbers that are looked at in a post."""
STOCK_NAMES: Final = {
    "step": ("current_step", "global_step", "step"),
    "total_steps": ("total_steps", "max_steps"),
    "epoch": ("current_epoch", "epoch"),
    "loss": ("loss", "train_loss"),
    "eval_loss": ("eval_loss",),
    "learning_rate": ("learning_rate",),
    "grad_norm": ("grad_norm",),
    "tokens_per_second": ("tokens_per_second", "train_tokens_per_second"),
}
"""Field of the progress -> names stock clients use, the first one present counts. transformers' callback says ``current_step``,
``total_steps`` and ``current_epoch`` beside the numbers of its log."""


def progress_of(post: ProgressPost, merged: Merged, *, before: StatusProgress | None, run: int, now: str) -> StatusProgress:
    """The progress a post stands for. A stock client says little: the rest stays as it was."""
    if post.finetune is None:
        return _of_stock_client(post.trainer_status, before, run=run, now=now)
    ours = post.finetune
    eta = _eta_seconds(post) if ours.stopped is None and ours.finished is None else None
    return StatusProgress(
        run=ours.run,
        attempt=ours.attempt,
        phase=ours.phase,
        step=ours.step,
        total_steps=ours.total_steps,
        steps_remaining=0 if ours.finished is not None else _steps_remaining(ours.step, ours.total_steps),
        percent=_percent(ours),
        epoch=round(ours.epoch, 4),
        loss=short(ours.loss),
        eval_loss=short(ours.eval_loss),
        learning_rate=short(ours.learning_rate),
        grad_norm=short(ours.grad_norm),
        tokens_per_second=short(ours.tokens_per_second, 4),
        metrics={name: value for name in SHOWN_METRICS if (value := short(ours.metrics.get(name), 4)) is not None} or None,
        eta_seconds=eta,
        eta=_words(eta) if eta is not None else None,
        updated_at=now,
        report=report_of(ours, merged),
    )


def patch_of(progress: StatusProgress) -> Manifest:
    """The merge patch; absent values are written as null, else those of an earlier attempt would stay."""
    return progress.model_dump(mode="json", by_alias=True)


def same_numbers(one: StatusProgress | None, other: StatusProgress) -> bool:
    """Whether nothing but the time differs."""
    return one is not None and one.model_copy(update={"updated_at": None}) == other.model_copy(update={"updated_at": None})


def _of_stock_client(status: TrainerStatus, before: StatusProgress | None, *, run: int, now: str) -> StatusProgress:
    """What a stock post says; what it leaves out (its last one has no step) stays, within a run."""
    told = {metric.name[:64]: value for metric in status.metrics[:MAX_STOCK_METRICS] if (value := _number(metric.value)) is not None}
    base = before if before is not None and before.run == run else StatusProgress(run=run)
    numbers: dict[str, object] = {name: value for name, aliases in STOCK_NAMES.items() if (value := _first(told, aliases)) is not None}
    numbers |= {name: max(0, int(value)) for name in ("step", "total_steps") if (value := _first(told, STOCK_NAMES[name])) is not None}
    known = {alias for aliases in STOCK_NAMES.values() for alias in aliases}
    others = {name: value for name, value in told.items() if name not in known}
    eta = max(0, status.estimated_remaining_seconds) if status.estimated_remaining_seconds is not None else None
    numbers |= {
        "phase": "Training",
        "percent": min(100, max(0, status.progress_percentage)) if status.progress_percentage is not None else base.percent,
        "metrics": dict(list(others.items())[:MAX_METRICS]) or base.metrics,
        "eta_seconds": eta,
        "eta": _words(eta) if eta is not None else None,
        "updated_at": now,
    }
    progress = base.model_copy(update=numbers)
    return progress.model_copy(update={"steps_remaining": _steps_remaining(progress.step, progress.total_steps)})


def _first(told: Mapping[str, float], names: tuple[str, ...]) -> float | None:
    return next((told[name] for name in names if name in told), None)


def _steps_remaining(step: int, total: int) -> int | None:
    return max(0, total - step) if total > 0 else None


def _percent(ours: FineTuneProgress) -> int:
    if ours.finished is not None:
        return 100
    return min(100, 100 * ours.step // ours.total_steps) if ours.total_steps > 0 else 0


def _eta_seconds(post: ProgressPost) -> int | None:
    if post.trainer_status.estimated_remaining_seconds is not None:
        return max(0, post.trainer_status.estimated_remaining_seconds)
    ours = post.finetune
    if ours is None or ours.step_seconds is None or ours.total_steps <= 0:
        return None
    return max(0, round(ours.step_seconds * (ours.total_steps - ours.step)))


def _words(seconds: int) -> str:
    """A duration as people say it: 45s, 12m, 1h23m, 3d4h."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if seconds < 60:
        return f"{seconds}s"
    if minutes < 60:
        return f"{minutes}m"
    return f"{hours}h{minutes % 60:02d}m" if hours < 48 else f"{days}d{hours % 24}h"


def _number(text: str) -> float | None:
    try:
        return short(float(text))
    except ValueError:
        return None

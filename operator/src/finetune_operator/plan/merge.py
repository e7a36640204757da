"""What the trainer reported becomes status: attempts, checkpoints, facts, usage, warnings."""

from __future__ import annotations

from finetune_api.advice import ATTACH_NOT_RECOMMENDED, OUTSIDE_RECOMMENDED, PRESET_ASSUMES, SETTING_IGNORED
from finetune_api.contract.progress import CheckpointReport
from finetune_api.contract.store import BestCheckpoint, checkpoint_prefix
from finetune_api.models.status import AttemptStatus, CheckpointStatus, ConditionType
from finetune_operator.plan.conditions import START_BLOCKED
from finetune_operator.plan.custom import NOT_RESUMABLE
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.namesake import DISPLAY_NAME_TAKEN
from finetune_operator.plan.notice import SLOW_CHECKPOINT, judge_notice
from finetune_operator.plan.usage import count_usage

MAX_RECENT = 5
MAX_ATTEMPTS = 10
MAX_FACTS = 32
OWN_CONDITIONS = frozenset(
    {
        *ConditionType,
        START_BLOCKED,
        SLOW_CHECKPOINT,
        OUTSIDE_RECOMMENDED,
        SETTING_IGNORED,
        ATTACH_NOT_RECOMMENDED,
        PRESET_ASSUMES,
        NOT_RESUMABLE,
        DISPLAY_NAME_TAKEN,
    }
)
"""Condition types of the operator; all others are the trainer's warnings."""
CHECKPOINT_EVENT_SECONDS = 60.0


def merge_report(draft: Draft) -> None:
    """Take over what the current run's trainer said. A report that was merged before changes nothing."""
    progress = draft.status.progress
    if progress is None or progress.run != draft.status.run or draft.attempt is None:
        return
    _merge_attempt(draft, progress.attempt)
    merge_checkpoints(draft, draft.report.checkpoints, saved=draft.report.checkpoints_saved)
    _merge_best(draft, draft.report.best)
    if draft.report.facts:
        draft.change(facts=dict(list({**draft.status.facts, **draft.report.facts}.items())[-MAX_FACTS:]))
        _merge_backend(draft)
    if draft.report.usage is not None:
        count_usage(draft, draft.report.usage)
    draft.change(usage=draft.status.usage.model_copy(update={"lost_steps": _lost_steps(draft)}))
    judge_notice(draft)
    _merge_warnings(draft)


def _merge_backend(draft: Draft) -> None:
    """Say whether ``training.backend: optimized`` has all its parts on this device and model."""
    facts = draft.status.facts
    if facts.get("backend") != "optimized":
        return
    used, missing = facts.get("backendParts") or "nothing", facts.get("backendMissing", "")
    if missing:
        draft.condition(ConditionType.OPTIMIZED_BACKEND, "False", "PartsMissing", f"In use: {used}. Without {missing}.")
    else:
        draft.condition(ConditionType.OPTIMIZED_BACKEND, "True", "AllPartsInUse", f"In use: {used}.")


def _merge_attempt(draft: Draft, number: int) -> None:
    """Number the attempt under way. A higher number means another one: a queue took the group's place and gave it back inside the run."""
    current = draft.attempt
    assert current is not None
    if number <= 0:
        return
    if current.attempt is not None and number > current.attempt:
        draft.change_attempt(ended_at=draft.now_text, outcome="Preempted")
        append_attempt(draft, AttemptStatus(run=draft.status.run, attempt=number, reason="Preempted", started_at=draft.now_text))
    parent = draft.report.parent
    draft.change_attempt(attempt=number, from_step=parent.step if parent else 0, lost_steps=draft.report.lost_steps)


def append_attempt(draft: Draft, attempt: AttemptStatus) -> None:
    """Begin an attempt."""
    draft.change(attempts=[*draft.status.attempts, attempt][-MAX_ATTEMPTS:], attempt_count=draft.status.attempt_count + 1)


def merge_checkpoints(draft: Draft, reports: list[CheckpointReport], *, saved: int = 0) -> None:
    """Add complete checkpoints; the newest attempt's highest step is the latest. ``saved``: how many its attempt says it has made."""
    _count_checkpoints(draft, [(report.attempt, report.step) for report in reports], saved)
    known = {(c.attempt, c.step): c for c in draft.status.checkpoints.recent}
    oldest = min(known, default=(0, 0))
    for report in reports:
        if (report.attempt, report.step) < oldest:
            continue
        checkpoint = CheckpointStatus(
            step=report.step,
            attempt=report.attempt,
            uri=report.uri,
            size_bytes=report.size_bytes,
            created_at=report.created_at,
            trigger=report.trigger,
            eval_loss=report.eval_loss,
            resumable=report.resumable,
        )
        if (report.attempt, report.step) not in known:
            _announce(draft, checkpoint)
        known[report.attempt, report.step] = checkpoint
    recent = [known[key] for key in sorted(known)][-MAX_RECENT:]
    if recent != draft.status.checkpoints.recent:
        ledger = draft.status.checkpoints.model_copy(update={"recent": recent, "latest": recent[-1]})
        draft.change(checkpoints=ledger)
    latest = draft.status.checkpoints.latest
    if latest is not None:
        message = f"checkpoint-{latest.step} of attempt {latest.attempt} is complete in the store"
        draft.condition(ConditionType.CHECKPOINT_READY, "True", "CheckpointSaved", message)


def _count_checkpoints(draft: Draft, found: list[tuple[int, int]], saved: int) -> None:
    """Count each checkpoint once: those after the latest one known, or as many as the attempt says that nobody has heard of (O-14)."""
    ledger, counted = draft.status.checkpoints, draft.status.attempts[-1].checkpoints
    latest = (ledger.latest.attempt, ledger.latest.step) if ledger.latest is not None else (0, -1)
    new = max(len({key for key in found if key > latest}), saved - counted)
    if new > 0:
        draft.change_attempt(checkpoints=counted + new)
        draft.change(checkpoints=ledger.model_copy(update={"saved": ledger.saved + new}))


def _announce(draft: Draft, checkpoint: CheckpointStatus) -> None:
    asked_for = checkpoint.trigger in ("pause", "stop", "command", "final")
    draft.say(
        "CheckpointSaved",
        f"checkpoint-{checkpoint.step} of attempt {checkpoint.attempt} ({checkpoint.trigger}) is complete: {checkpoint.uri}",
        key=f"{checkpoint.attempt}/{checkpoint.step}",
        min_interval_seconds=0.0 if asked_for else CHECKPOINT_EVENT_SECONDS,
    )


def _merge_best(draft: Draft, best: BestCheckpoint | None) -> None:
    ledger = draft.status.checkpoints
    if best is None:
        return
    found = next((c for c in ledger.recent if (c.attempt, c.step) == (best.attempt, best.step)), None)
    if found is None and ledger.best is not None and (ledger.best.attempt, ledger.best.step) == (best.attempt, best.step):
        return
    if found is None:
        uri = f"{draft.status.output_uri or ''}/{checkpoint_prefix(best.attempt, best.step)}"
        found = CheckpointStatus(
            step=best.step, attempt=best.attempt, uri=uri, created_at=draft.now_text, trigger="steps", eval_loss=best.value
        )
    draft.change(checkpoints=ledger.model_copy(update={"best": found}))


def _lost_steps(draft: Draft) -> int:
    """Steps trained more than once: those of all attempts, the present one counted once."""
    before = draft.job.status.attempts[-1] if draft.job.status.attempts else None
    current = draft.status.attempts[-1]
    counted = before.lost_steps if before is not None and (before.run, before.attempt) == (current.run, current.attempt) else 0
    return draft.status.usage.lost_steps - counted + current.lost_steps


def _merge_warnings(draft: Draft) -> None:
    for kind, message in draft.report.warnings.items():
        if message and kind not in OWN_CONDITIONS:
            draft.condition(kind, "True", "ReportedByTrainer", message)
    for condition in draft.status.conditions:
        if condition.type not in OWN_CONDITIONS and not draft.report.warnings.get(condition.type):
            draft.drop_condition(condition.type)

"""How a run ends in the status: first it is recorded, then (at the next look) its objects are removed."""

from __future__ import annotations

from typing import Any

from finetune_api.contract.failures import EXIT_STOPPED, REACTIONS, FailureClass, Retry
from finetune_api.contract.store import CheckpointRef, checkpoint_prefix
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.status import Artifacts, CheckpointStatus, ConditionType, Phase
from finetune_operator.plan.conditions import START_BLOCKED
from finetune_operator.plan.custom import custom_result, method_of, reached_step
from finetune_operator.plan.desire import Desire
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.export import begin_export, show_success
from finetune_operator.plan.failure import Culprit
from finetune_operator.plan.merge import merge_checkpoints
from finetune_operator.plan.pause import active_ask, answer_ask, show_release
from finetune_operator.plan.retry import OUTCOME_PAUSED, RetryPolicy, after_failure
from finetune_operator.plan.usage import count_pods


def close_attempt(draft: Draft, outcome: str, *, exit_code: int | None = None, to_step: int | None = None) -> None:
    """Record the end of the attempt under way; its objects are looked after next."""
    progress = draft.status.progress
    reached = progress.step if progress is not None and progress.run == draft.status.run else None
    if method_of(draft) is not None:
        count_pods(draft)
    draft.change_attempt(ended_at=draft.now_text, outcome=outcome, exit_code=exit_code, to_step=to_step if to_step is not None else reached)
    draft.drop_condition(START_BLOCKED)
    draft.wake_in(0)


def succeed(draft: Draft, answer: TerminationMessage | None = None) -> None:
    """Record success. The final adapter or model is committed before any rank exits with 0, at a place the contract fixes."""
    finished = draft.report.finished
    step = finished.step if finished is not None else answer.step if answer is not None else None
    custom = custom_result(draft)
    if custom is not None and step is None:
        step = reached_step(draft)
    uri = finished.final_uri if finished is not None else answer.final_uri if answer is not None else None
    uri = uri or custom or f"{draft.status.output_uri}/final"
    kind = _kind(draft) if custom is None else None
    if draft.attempt is not None:
        close_attempt(draft, "Succeeded", exit_code=0, to_step=step)
    draft.change(
        artifacts=Artifacts(
            final_uri=uri,
            kind=kind,
            source=finished.source if finished is not None else None,
            step=step,
            early_stopped=finished is not None and finished.early_stopped,
            eval_loss=finished.metrics.get("eval_loss") if finished is not None else None,
        ),
        failure=None,
        hold=None,
        pause=draft.status.pause if active_ask(draft.status) is None else None,
    )
    if begin_export(draft):
        return
    show_success(draft)


def _kind(draft: Draft) -> Any:
    """Adapter or whole model, as the spec says; the status model checks it."""
    resolved = draft.status.resolved.get("adapter.type")
    written = (draft.job.spec.get("adapter") or {}).get("type")
    return written if written is not None else resolved.value if resolved is not None else None


def fail(draft: Draft, culprit: Culprit) -> None:
    """Record a failure that only the user ends (``finetune.dev/request: retry/<token>``)."""
    if draft.attempt is not None:
        close_attempt(draft, culprit.failure_class, exit_code=culprit.exit_code)
    draft.change(failure=culprit.to_status(draft.status.run), finished_at=draft.now_text)
    draft.show(draft.phase, culprit.failure_class, culprit.message)
    draft.say("Failed", f"{culprit.failure_class}: {culprit.message} {REACTIONS[culprit.failure_class].advice}", kind="Warning")
    draft.wake_in(0)


def fail_or_retry(draft: Draft, culprit: Culprit) -> None:
    """A run ended by itself: the pause that was asked for, the next run, or the end."""
    _take_over(draft, culprit.answer)
    reaction = REACTIONS[culprit.failure_class].retry
    ask = active_ask(draft.status)
    if reaction is not Retry.NEVER and (ask is not None or draft.desire is not Desire.RUN):
        answer = culprit.answer
        if answer is not None and answer.exit_code == EXIT_STOPPED and answer.checkpoint is not None:
            step = answer.step if answer.step is not None else answer.checkpoint.step
            answer_ask(
                draft, saved=answer.checkpoint.step == step, step=answer.checkpoint.step, lost_steps=max(0, step - answer.checkpoint.step)
            )
        outcome = OUTCOME_PAUSED if culprit.failure_class is FailureClass.PREEMPTED else culprit.failure_class
        close_attempt(draft, outcome, exit_code=culprit.exit_code)
        show_release(draft)
        return
    close_attempt(draft, culprit.failure_class, exit_code=culprit.exit_code)
    retry = draft.job.spec.get("retry") or {}
    policy = RetryPolicy(retry.get("limit", 3), retry.get("backoffSeconds", 10), draft.settings.max_backoff_seconds)
    budget = after_failure(draft.status, culprit.failure_class, policy, draft.now)
    if budget is None:
        fail(draft, _exhausted(culprit, policy) if reaction is Retry.COUNTED else culprit)
        return
    draft.change(retry=budget)
    goes_on = _how_it_goes_on(draft)
    free = reaction is Retry.FREE
    draft.show(Phase.STARTING, culprit.failure_class if free else "Retrying", f"{culprit.message} The job {goes_on}.")
    counted = "" if free else f" Restart {budget.used} of {policy.limit}."
    draft.say(
        culprit.failure_class if free else "Retrying",
        f"{culprit.failure_class}: {culprit.message} The job {goes_on}.{counted}",
        kind="Warning",
        key=str(draft.status.run),
    )


def _how_it_goes_on(draft: Draft) -> str:
    latest, method = draft.status.checkpoints.latest, method_of(draft)
    if method is not None:
        return f"is started again; TrainingMethod {method} looks for its own checkpoint"
    return f"goes on from checkpoint-{latest.step}" if latest is not None else "starts again from the beginning"


def _exhausted(culprit: Culprit, policy: RetryPolicy) -> Culprit:
    message = f"{culprit.message} No restart is left: retry.limit is {policy.limit}, and no new checkpoint was made since."
    return culprit._replace(message=message)


def _take_over(draft: Draft, answer: TerminationMessage | None) -> None:
    """Checkpoints that only the pod's last words name (its posts did not arrive any more)."""
    if answer is not None and answer.checkpoint is not None:
        note_checkpoint(draft, answer.checkpoint)


def note_checkpoint(draft: Draft, ref: CheckpointRef) -> None:
    """Add a checkpoint of this job that is known by name only."""
    known = draft.status.checkpoints
    if ref.uri is not None or (known.latest is not None and (ref.attempt, ref.step) <= (known.latest.attempt, known.latest.step)):
        return
    uri = f"{draft.status.output_uri}/{checkpoint_prefix(ref.attempt, ref.step)}"
    added = CheckpointStatus(step=ref.step, attempt=ref.attempt, uri=uri, created_at=draft.now_text, trigger="signal")
    recent = [*known.recent, added][-5:]
    draft.change(checkpoints=known.model_copy(update={"latest": added, "recent": recent, "saved": known.saved + 1}))
    draft.change_attempt(checkpoints=draft.status.attempts[-1].checkpoints + 1)
    merge_checkpoints(draft, [])
    draft.condition(
        ConditionType.CHECKPOINT_READY,
        "True",
        "CheckpointSaved",
        f"checkpoint-{ref.step} of attempt {ref.attempt} is complete in the store",
    )

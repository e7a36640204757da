"""Giving up the pods of a run in two steps: ask, and release only when the answer is stored (or the timeout says so).

::

    ask      status.pause is written; every reply to the trainer's posts carries the command
    answer   the trainer's post with ``stopped`` is in status.progress before it gets its 200
    release  the attempt is closed in status; at the next look the Job is deleted (foreground, with its uid)
"""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from finetune_api.defaults import SCHEMA
from finetune_api.models.status import ConditionType, FineTuneJobStatus, PauseStatus, Phase
from finetune_operator.plan.desire import Desire
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.observed import Pod, parse_time

USER_REQUESTED = "UserRequested"
_BEFORE_LOADING = frozenset({"Starting", "Preparing"})


def active_ask(status: FineTuneJobStatus) -> PauseStatus | None:
    """The ask that was not answered yet."""
    return status.pause if status.pause is not None and status.pause.saved is None else None


def ending_phase(draft: Draft) -> Phase:
    """What the job shows while it gives up its pods."""
    if draft.desire in (Desire.STOP, Desire.CANCEL):
        return Phase.STOPPING
    asked_to_stop = draft.status.pause is not None and draft.status.pause.action == "stop" and active_ask(draft.status) is not None
    return Phase.STOPPING if asked_to_stop else Phase.PAUSING


def show_release(draft: Draft) -> None:
    """Show that nothing is left to wait for but the end of the pods."""
    draft.show(ending_phase(draft), "Releasing", "The pods are being released.")


def answer_ask(draft: Draft, *, saved: bool, step: int | None, lost_steps: int = 0, seconds: dict[str, float] | None = None) -> None:
    """Store the outcome of the ask, if one is open."""
    ask = active_ask(draft.status)
    if ask is None:
        return
    update = {"saved": saved, "step": step, "lost_steps": lost_steps, "seconds": dict(list((seconds or {}).items())[:8])}
    draft.change(pause=ask.model_copy(update=update))
    if lost_steps:
        message = f"No complete checkpoint of the step the job was paused at: {lost_steps} steps are lost."
        draft.condition(ConditionType.CHECKPOINT_READY, "False", "CheckpointTimedOut", message)
    elif saved:
        message = f"checkpoint-{step}, where the job was paused, is complete in the store"
        draft.condition(ConditionType.CHECKPOINT_READY, "True", "CheckpointSaved", message)


def ask_for_pause(draft: Draft) -> PauseStatus:
    """The open ask; made now when there is none."""
    ask = active_ask(draft.status)
    if ask is not None:
        return ask
    action: Literal["pause", "stop"] = "pause" if draft.desire is Desire.PAUSE else "stop"
    run = draft.status.run
    ask = PauseStatus(command_id=f"{action}-{run}-{draft.job.generation}", run=run, action=action, requested_at=draft.now_text)
    draft.change(pause=ask)
    draft.say("PauseRequested", f"The trainer is asked to {action}: it saves a checkpoint, then its pods are released.", key=ask.command_id)
    return ask


def nothing_to_save(draft: Draft, pods: tuple[Pod, ...]) -> bool:
    """Whether no step can have been made: no trainer container has run, or the trainer has not even begun to load the model.

    Before that it has no workers, and they take longer to start than its next post: nobody needs to be asked.
    """
    if not any(pod.started for pod in pods):
        return True
    progress = draft.status.progress
    return progress is not None and progress.run == draft.status.run and progress.phase in _BEFORE_LOADING


def timeout_passed(draft: Draft, ask: PauseStatus) -> bool:
    """Whether the ask is older than ``pausePolicy.timeoutSeconds``; asks to be called again if not."""
    asked = parse_time(ask.requested_at)
    assert asked is not None
    deadline = asked + timedelta(seconds=policy_seconds(draft, "timeoutSeconds"))
    if draft.now < deadline:
        draft.wake_at(deadline)
        return False
    return True


def discards(draft: Draft) -> bool:
    """Whether the pods go after the timeout even though the checkpoint is not complete."""
    return str((draft.job.spec.get("pausePolicy") or {}).get("ifUnsaved", SCHEMA["pausePolicy.ifUnsaved"])) == "Discard"


def policy_seconds(draft: Draft, name: str) -> int:
    """A number of ``pausePolicy``, as it is now."""
    return int((draft.job.spec.get("pausePolicy") or {}).get(name, SCHEMA[f"pausePolicy.{name}"]))

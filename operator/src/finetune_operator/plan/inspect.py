"""Asking the store, through a short pod in the job's namespace, when a run's own report is missing."""

from __future__ import annotations

from finetune_api.constants import verb_name
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.status import Phase
from finetune_operator.plan.custom import method_of
from finetune_operator.plan.desire import Desire
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.ending import fail_or_retry, note_checkpoint, succeed
from finetune_operator.plan.failure import Culprit
from finetune_operator.plan.pause import active_ask, answer_ask, ending_phase
from finetune_operator.plan.verbs import build_verb, verb_answer


class Pending:
    """The store was asked and has not answered."""


PENDING = Pending()


def ask_store(draft: Draft) -> TerminationMessage | Pending | None:
    """What the store says: an answer, None when it cannot be had, :data:`PENDING` while it is awaited."""
    workload = draft.observed.verbs.get("inspect")
    if workload is not None and workload.ended:
        answer = verb_answer(draft.observed, workload)
        return answer if answer is not None and answer.exit_code == 0 else None
    config = _config(draft)
    if config is None or draft.observed.namespace_terminating:
        return None
    if workload is None:
        draft.do(build_verb(draft.job, config, "inspect", draft.settings, deadline_seconds=draft.settings.verb_deadline_seconds))
    return PENDING


def _config(draft: Draft) -> RunConfig | None:
    """The run config of the run that is asked about."""
    return draft.observed.last_run.config if draft.observed.last_run is not None else None


def vanished(draft: Draft) -> None:
    """The Job of a run whose end is not recorded is gone: what it came to is in the store, never assumed."""
    if draft.report.finished is not None:
        succeed(draft)
        return
    answer = ask_store(draft) if method_of(draft) is None else None
    if isinstance(answer, Pending):
        desired = draft.desire is Desire.RUN and active_ask(draft.status) is None
        phase = Phase.STARTING if desired else ending_phase(draft)
        name = verb_name(draft.job.name, "inspect", draft.status.run)
        draft.show(phase, "Inspecting", f"The Job of run {draft.status.run} is gone; {name} looks what is in the store.")
        return
    if answer is not None and answer.final_uri is not None:
        succeed(draft, answer)
        return
    if answer is not None and answer.checkpoint is not None:
        note_checkpoint(draft, answer.checkpoint)
    fail_or_retry(draft, Culprit(FailureClass.PREEMPTED, f"The Job of run {draft.status.run} was deleted from outside."))


def confirm_pause(draft: Draft) -> bool:
    """Find out what a pause without an answer left in the store; False while that is awaited."""
    ask = active_ask(draft.status)
    if ask is None:
        return True
    answer = ask_store(draft)
    if isinstance(answer, Pending):
        draft.show(ending_phase(draft), "Inspecting", "The pods are gone without an answer; the store is looked at.")
        return False
    if answer is None:
        message = "The store could not be looked at; the newest checkpoint known here counts."
        draft.say("PauseUnconfirmed", message, kind="Warning", key=ask.command_id)
    elif answer.checkpoint is not None:
        note_checkpoint(draft, answer.checkpoint)
    if answer is not None and answer.step is not None and draft.last_attempt is not None:
        draft.change_attempt(to_step=answer.step)
    latest = draft.status.checkpoints.latest
    step = latest.step if latest is not None else 0
    reached = draft.last_attempt.to_step if draft.last_attempt is not None else None
    lost = max(0, (reached or 0) - step)
    answer_ask(draft, saved=answer is not None and step > 0 and lost == 0, step=step, lost_steps=lost)
    return True

"""Runs of a TrainingMethod: an administrator's program, which saves, resumes and reports as it can.

What is different from a run of our own trainer: nobody can be asked to save (SIGTERM says it, ``pausePolicy.graceSeconds`` is the time for
it), the store is not looked at for checkpoints, and the operator counts the time itself.
"""

from __future__ import annotations

from finetune_api.contract.custom import final_uri
from finetune_api.contract.run_config import CustomMethod
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.names import ANNOTATION_METHOD

NOT_RESUMABLE = "NotResumable"
"""Warning condition: the job's method begins anew after each stop."""


def method_of(draft: Draft) -> str | None:
    """Name of the TrainingMethod the current or last run was made from; None for our own trainer."""
    workload = draft.observed.workload
    if workload is not None:
        return workload.annotations.get(ANNOTATION_METHOD)
    last = draft.observed.last_run
    return last.config.custom.name if last is not None and last.config.custom is not None else None


def custom_result(draft: Draft) -> str | None:
    """Where the program of a TrainingMethod leaves its result; None for our own trainer's runs."""
    last = draft.observed.last_run
    return final_uri(last.config) if last is not None and last.config.custom is not None else None


def reached_step(draft: Draft) -> int | None:
    """The last step the run's program spoke of."""
    progress = draft.status.progress
    return progress.step if progress is not None and progress.run == draft.status.run and progress.step > 0 else None


def resting_place(draft: Draft, word: str, method: str) -> str:
    """What a pause of a TrainingMethod's job means; ``word``: Paused, Stopped or Cancelled."""
    step = reached_step(draft)
    where = f"{word} at step {step}, as its program last said" if step is not None else word
    last = draft.observed.last_run
    kept = last is not None and last.config.custom is not None and last.config.custom.spec.resumable
    next_run = "goes on from the checkpoint it keeps itself" if kept else "begins anew, for it keeps no checkpoint"
    return f"{where}; the next run of TrainingMethod {method} {next_run}."


def resume_warning(custom: CustomMethod | None) -> dict[str, str]:
    """Condition type -> message, for a method that loses everything when it is stopped."""
    if custom is None or custom.spec.resumable:
        return {}
    return {
        NOT_RESUMABLE: f"TrainingMethod {custom.name} keeps no checkpoint: a pause, a failure or a lost node makes it begin anew"
        " (its field resumable says so)."
    }

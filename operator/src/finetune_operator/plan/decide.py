"""``plan``: from what exists to what must change. Pure and total; reads like a table of contents."""

from __future__ import annotations

from datetime import datetime

from finetune_api.advice import ATTACH_NOT_RECOMMENDED, OUTSIDE_RECOMMENDED, PRESET_ASSUMES, SETTING_IGNORED
from finetune_api.models.status import FINAL_PHASES, ConditionType, Phase, RetryStatus
from finetune_operator.plan import conditions
from finetune_operator.plan.custom import NOT_RESUMABLE, method_of
from finetune_operator.plan.decision import Plan
from finetune_operator.plan.desire import VERBS, Desire, Request, desire_of, open_request
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.export import after_training, asks_again, is_exporting
from finetune_operator.plan.live import live
from finetune_operator.plan.merge import merge_report
from finetune_operator.plan.namesake import DISPLAY_NAME_TAKEN, namesake_warning
from finetune_operator.plan.observed import JobObject, Observed
from finetune_operator.plan.removal import remove
from finetune_operator.plan.rest import between_runs, tidy_finished
from finetune_operator.plan.specs import Accepted, Refused, judge_spec
from finetune_operator.plan.status import finish_status
from finetune_operator.plan.topology import gpus_of
from finetune_operator.plan.usage import hold_at_limit, resume_refusal
from finetune_operator.settings import PlanSettings


def plan(observed: Observed, *, now: datetime, settings: PlanSettings) -> Plan:
    """Decide what must change so that the cluster matches the job. Applying the result and deciding again changes nothing more."""
    draft = Draft(observed, now, settings)
    if observed.job.deleted_at is not None:
        remove(draft)
        return draft.done()
    if is_exporting(draft.job) or asks_again(draft.job):
        after_training(draft)
        finish_status(draft)
        return draft.done()
    if draft.phase in FINAL_PHASES:
        finish_status(draft)
        tidy_finished(draft)
        return draft.done()
    merge_report(draft)
    _fill_columns(draft)
    _take_request(draft)
    hold_at_limit(draft)
    verdict = _judge(draft)
    if draft.attempt is not None:
        live(draft)
    else:
        between_runs(draft, verdict)
    finish_status(draft)
    return draft.done()


def needs_spec(job: JobObject) -> bool:
    """Whether a decision on this job needs its resolved spec: after an edit, while it is not valid, and whenever a run may start."""
    status = job.status
    if job.deleted_at is not None or status.phase in FINAL_PHASES:
        return False
    edited = status.observed_generation != job.generation or not conditions.is_true(status.conditions, ConditionType.VALID)
    open_run = bool(status.attempts) and status.attempts[-1].ended_at is None
    may_start = not open_run and ((desire_of(job) is Desire.RUN and status.failure is None) or open_request(job) is not None)
    return edited or may_start


def lacks_columns(job: JobObject) -> bool:
    """Whether a job was started by an operator that did not show method and GPUs yet; its spec is not judged while it runs."""
    return job.status.run > 0 and job.status.method is None


def _fill_columns(draft: Draft) -> None:
    """Show method and GPUs of the run, as it was made (A-09)."""
    last = draft.observed.last_run
    if last is not None and lacks_columns(draft.job):
        custom, spec = last.config.custom, last.config.spec
        draft.change(method=custom.name if custom is not None else spec.method, gpus=gpus_of(spec))


def _judge(draft: Draft) -> Accepted | Refused | None:
    """Check the spec where that is due, and say so in the condition Valid."""
    if not needs_spec(draft.job):
        return None
    verdict = judge_spec(draft.observed, draft.settings)
    before = conditions.find(draft.status.conditions, ConditionType.VALID)
    match verdict:
        case Refused(reason, message):
            draft.condition(ConditionType.VALID, "False", reason, message)
            if before is None or before.message != message[:1024]:
                draft.say(reason, message, kind="Warning", key=str(draft.job.generation))
        case Accepted():
            draft.condition(ConditionType.VALID, "True", "Accepted", "The spec can be run.")
            draft.change(method=verdict.method, gpus=gpus_of(verdict.spec))
            if draft.status.run == 0:
                draft.change(resolved=verdict.resolved)
            _advise(draft, verdict.warnings | namesake_warning(draft.job, draft.observed.namesake))
            if before is None or before.status != "True":
                draft.say("Validated", "The spec can be run.", key=str(draft.job.generation))
    return verdict


def _advise(draft: Draft, warnings: dict[str, str]) -> None:
    """Advice on the spec, as conditions; it never keeps a job from running."""
    for kind in (OUTSIDE_RECOMMENDED, SETTING_IGNORED, ATTACH_NOT_RECOMMENDED, PRESET_ASSUMES, NOT_RESUMABLE, DISPLAY_NAME_TAKEN):
        before = conditions.find(draft.status.conditions, kind)
        if kind not in warnings:
            draft.drop_condition(kind)
            continue
        draft.condition(kind, "True", "Advice", warnings[kind])
        if before is None or before.message != warnings[kind]:
            draft.say(kind, warnings[kind], kind="Warning", key=str(draft.job.generation))


def _take_request(draft: Draft) -> None:
    """Act once on the request annotation."""
    request = open_request(draft.job)
    if request is None:
        return
    ignored = _refuse_request(draft, request)
    if ignored:
        draft.say("RequestIgnored", f"{request.text}: {ignored}", kind="Warning", key=request.text)
    elif request.verb == "retry":
        draft.change(failure=None, finished_at=None, retry=RetryStatus(checkpoint_step=draft.status.retry.checkpoint_step))
        draft.say("RetryRequested", f"{request.text}: the job is started again.", key=request.text)
    elif request.verb == "resume":
        draft.change(hold=None)
        draft.say("ResumeRequested", f"{request.text}: the job goes on.", key=request.text)
    elif request.verb == "approve":
        approved = _cost_to_approve(draft)
        assert approved is not None, "else the request is refused"
        draft.change(approved_cost=approved)
        draft.say("Approved", f"{request.text}: the job may cost {approved}.", key=request.text)
    elif request.text not in draft.report.acknowledged:
        return
    else:
        draft.say("CheckpointRequested", f"{request.text}: the checkpoint was made.", key=request.text)
    draft.change(last_handled_request=request.text)


def _refuse_request(draft: Draft, request: Request) -> str:
    """Why a request cannot be acted on; empty if it can."""
    match request.verb:
        case "retry":
            return "" if draft.status.failure is not None else "the job has not failed"
        case "resume" if draft.status.hold is None:
            return "nothing is paused by a limit; a pause of the spec ends with spec.suspend false and spec.replicas above 0"
        case "resume":
            return resume_refusal(draft)
        case "approve":
            return "" if _cost_to_approve(draft) is not None else "the job does not wait for approval (phase AwaitingApproval)"
        case "checkpoint" if (method := method_of(draft)) is not None:
            return f"TrainingMethod {method} keeps its own checkpoints; it cannot be asked for one"
        case "checkpoint":
            trains = draft.attempt is not None and draft.status.phase not in (Phase.PAUSING, Phase.STOPPING)
            return "" if trains else "the job is not training"
        case _:
            return f"unknown verb; write one of {', '.join(f'{verb}/<token>' for verb in VERBS)}"


def _cost_to_approve(draft: Draft) -> str | None:
    """What a job that waits for approval said it may cost; what it may cost now is compared with it when it starts."""
    estimate = draft.status.estimate
    if draft.status.phase is not Phase.AWAITING_APPROVAL or estimate is None or estimate.cost is None:
        return None
    return estimate.cost.high

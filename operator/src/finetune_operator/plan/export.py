"""After a training: merge, GGUF, push, in a pod without GPUs. Its failure never makes a trained job Failed.

::

    training done ─► Exporting ─► Succeeded (Exported=True)
                        │  ▲└───► Succeeded (ExportFailed=True: class, advice); request retry/<token> makes another try
                        ▼  │
                      Paused, Stopped: the pod goes, the next one goes on with what is complete in the store

The trainer keeps what it has made under ``final/`` with a manifest of its own, so every try, by whatever operator, goes on with the rest.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import ValidationError

from finetune_api.constants import ANNOTATION_REQUEST, verb_name
from finetune_api.contract.failures import REACTIONS, FailureClass, Retry
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.termination import TerminationMessage
from finetune_api.defaults import SCHEMA
from finetune_api.exports import exports_of
from finetune_api.models.status import ArtifactStatus, ConditionType, ExportStatus, Phase
from finetune_operator.plan import conditions
from finetune_operator.plan.base_models import trusted_now
from finetune_operator.plan.blocked import blocked_message, look_for_blocked
from finetune_operator.plan.decision import DeleteJob
from finetune_operator.plan.desire import Desire, Request, desire_of, open_request
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.export_pod import build_export
from finetune_operator.plan.failure import Culprit, find_culprit
from finetune_operator.plan.model_code import code_refusal
from finetune_operator.plan.observed import JobObject, Workload, parse_time
from finetune_operator.plan.retry import RetryPolicy, backoff
from finetune_operator.plan.run_config import build_run_config
from finetune_operator.plan.specs import Accepted, judge_spec
from finetune_operator.plan.verbs import delete_verb, verb_answer, verb_pod

OPEN, DONE, FAILED = "Open", "Done", "Failed"
VERB = "export"
MAX_OUTPUTS = 6
"""merged, four GGUF formats, a hub."""


def is_exporting(job: JobObject) -> bool:
    """Whether an export is wanted and not finished."""
    return job.status.export is not None and job.status.export.state == OPEN


def asks_again(job: JobObject) -> bool:
    """Whether a job that has succeeded is asked to export (again)."""
    request = open_request(job)
    return job.status.phase is Phase.SUCCEEDED and job.deleted_at is None and request is not None


def needs_outputs(job: JobObject, workload: Workload | None) -> bool:
    """Whether a decision needs to know which outputs the job wants: its training may just have ended, or they are being made."""
    if job.deleted_at is not None:
        return False
    ended = bool(job.status.attempts) and job.status.attempts[-1].ended_at is None and (workload is None or workload.ended)
    return ended or is_exporting(job) or asks_again(job)


def export_name(job: JobObject) -> str | None:
    """Name of the Job of the current or last try."""
    return verb_name(job.name, VERB, job.status.export.serial) if job.status.export is not None else None


def export_config(draft: Draft) -> RunConfig | None:
    """What the export is told: the last run's config with the outputs as the spec has them now. None: nothing usable is left of the job."""
    last = draft.observed.last_run
    verdict = judge_spec(draft.observed, draft.settings)
    if last is not None:
        if not isinstance(verdict, Accepted):
            return _without_refused_code(last.config, draft)
        changed = {"output": verdict.spec.output, "secrets": verdict.spec.secrets, "checkpoint": verdict.spec.checkpoint}
        return last.config.model_copy(update={"spec": last.config.spec.model_copy(update=changed)})
    if not isinstance(verdict, Accepted):
        return None
    spec = verdict.spec.model_copy(update={"replicas": max(1, verdict.spec.replicas)})
    config = build_run_config(draft.job, spec, max(1, draft.status.run), draft.settings, verdict.chosen)
    return config.model_copy(update={"store": config.store.model_copy(update={"uri": draft.status.output_uri or config.store.uri})})


def _without_refused_code(config: RunConfig, draft: Draft) -> RunConfig:
    """A permission that was taken back holds for exports too; the trainer then says what it needs."""
    if not code_refusal(config.spec, draft.settings.trusted_model_code, trusted_now(config.base_model, draft.observed)):
        return config
    model = config.spec.model.model_copy(update={"trust_remote_code": False})
    return config.model_copy(update={"spec": config.spec.model_copy(update={"model": model})})


def begin_export(draft: Draft) -> bool:
    """After a training that is recorded as successful: enter Exporting if the job wants more than its final weights."""
    config = export_config(draft)
    if config is None or not exports_of(config.spec):
        return False
    draft.change(export=ExportStatus(serial=1))
    draft.show(Phase.EXPORTING, "AwaitingPods", f"The training is done; {_wanted(config)} will be made without GPUs.")
    draft.condition(ConditionType.EXPORTED, "False", "Exporting", draft.message)
    draft.wake_in(0)
    return True


def _take_request(draft: Draft) -> bool:
    """Act on the request annotation of a job whose training is done: only retry means something, and only while no export is open."""
    request = open_request(draft.job)
    if request is None:
        return False
    refused = _refusal(draft, request)
    if refused:
        draft.say("RequestIgnored", f"{request.text}: {refused}", kind="Warning", key=request.text)
    else:
        before, workload = draft.status.export, draft.observed.verbs.get(VERB)
        if workload is not None and not workload.deleting:
            delete_verb(draft, workload)
        draft.change(export=ExportStatus(serial=before.serial + 1 if before is not None else 1))
        draft.drop_condition(ConditionType.EXPORT_FAILED)
        draft.condition(ConditionType.EXPORTED, "False", "Exporting", "Exporting again, as requested.")
        draft.say("RetryRequested", f"{request.text}: the export is started again.", key=request.text)
    draft.change(last_handled_request=request.text)
    draft.wake_in(0)
    return True


def _refusal(draft: Draft, request: Request) -> str:
    if request.verb != "retry":
        return "the training is done; only retry, for a new export, can be asked for"
    if is_exporting(draft.job):
        return "an export is under way"
    config = export_config(draft)
    if config is None:
        return "the job's spec or preset cannot be used any more"
    return "" if exports_of(config.spec) else "nothing is to be exported; set output.merge, output.export.gguf or output.push first"


def after_training(draft: Draft) -> None:
    """Decide on a job whose training is done and that has, or is asked for, an export."""
    if not _take_request(draft) and is_exporting(draft.job):
        export(draft)


def export(draft: Draft) -> None:
    """Decide on an export that is open; the phase is Exporting, or Succeeded when it was asked for later."""
    workload = draft.observed.verbs.get(VERB)
    desire = desire_of(draft.job)
    if desire is not Desire.RUN and draft.status.phase is not Phase.SUCCEEDED:
        _rest(draft, workload, desire)
    elif draft.observed.namespace_terminating:
        _show(draft, "NamespaceTerminating", f"Namespace {draft.job.namespace} is being deleted.")
    elif workload is None:
        _start(draft)
    elif workload.deleting:
        draft.wake_in(1)
    elif workload.complete:
        _finish(draft, workload)
    elif workload.failed:
        pod = verb_pod(draft.observed, workload)
        _failed(draft, workload, find_culprit([pod] if pod is not None else [], workload))
    else:
        _watch(draft, workload)


def _rest(draft: Draft, workload: Workload | None, desire: Desire) -> None:
    """A pause, stop or cancel: no pod is kept. The trained result is safe in the store."""
    if workload is not None:
        if not workload.deleting:
            delete_verb(draft, workload)
        draft.show(Phase.PAUSING if desire is Desire.PAUSE else Phase.STOPPING, "Releasing", "The export's pod is being removed.")
        draft.wake_in(1)
        return
    where = draft.status.artifacts.final_uri
    if desire is Desire.CANCEL:
        draft.change(export=_open(draft).model_copy(update={"state": FAILED}), finished_at=draft.now_text)
        draft.condition(ConditionType.EXPORTED, "False", "Cancelled", "Cancelled before the export was complete.")
        draft.show(Phase.CANCELLED, "Cancelled", f"Cancelled while exporting; the trained result stays in {where}.")
    else:
        phase, word = (Phase.PAUSED, "Paused") if desire is Desire.PAUSE else (Phase.STOPPED, "Stopped")
        draft.show(phase, "UserRequested", f"{word} while exporting; the training is done ({where}), the export goes on after a resume.")


def _start(draft: Draft) -> None:
    at = parse_time(_open(draft).next_start_at)
    if at is not None and draft.now < at:
        _show(draft, "BackOff", f"The last try of the export failed; the next one starts at {_open(draft).next_start_at}.")
        draft.wake_at(at)
        return
    config = export_config(draft)
    if config is None:
        _give_up(draft, Culprit(FailureClass.CONFIGURATION, "Neither the last run's ConfigMap nor a valid spec is there to export by."))
        return
    draft.do(build_export(draft.job, config, _open(draft).serial, draft.status.facts, draft.settings))
    _show(draft, "AwaitingPods", f"{export_name(draft.job)} makes {_wanted(config)}.")


def _watch(draft: Draft, workload: Workload) -> None:
    """A try under way: what its pod says."""
    pod = verb_pod(draft.observed, workload)
    blocked, hopeless = look_for_blocked(draft, [pod] if pod is not None else [])
    if hopeless is not None:
        _failed(draft, workload, hopeless)
    elif blocked is not None:
        _show(draft, blocked.waiting or "", blocked_message(blocked))
    elif pod is not None and pod.unschedulable is not None:
        _show(draft, FailureClass.UNSCHEDULABLE, pod.unschedulable)
    elif pod is None or not pod.started:
        _show(draft, "AwaitingPods", f"{workload.name} has not started yet.")
    else:
        _show(draft, "Exporting", f"{workload.name} is at work.")


def _finish(draft: Draft, workload: Workload) -> None:
    answer = verb_answer(draft.observed, workload)
    outputs = read_outputs(answer)
    message = answer.message if answer is not None and answer.message else f"{workload.name} has ended well, its answer is lost."
    artifacts = draft.status.artifacts
    if outputs:
        artifacts = artifacts.model_copy(update={"outputs": outputs})
    draft.change(export=_open(draft).model_copy(update={"state": DONE, "next_start_at": None}), artifacts=artifacts)
    draft.condition(ConditionType.EXPORTED, "True", "Exported", message)
    draft.drop_condition(ConditionType.EXPORT_FAILED)
    draft.say("Exported", message, key=workload.uid)
    _succeed(draft)


def read_outputs(answer: TerminationMessage | None) -> list[ArtifactStatus]:
    """The forms of the result that an export's pod names; none for an answer of another version."""
    try:
        listed = (answer.result or {}).get("outputs") if answer is not None else None
        return [ArtifactStatus.model_validate(each) for each in listed][:MAX_OUTPUTS] if isinstance(listed, list) else []
    except ValidationError:
        return []


def _failed(draft: Draft, workload: Workload, culprit: Culprit) -> None:
    """Another try where the class allows it; what is complete in the store is not made again."""
    if workload.message.startswith("DeadlineExceeded"):
        message = "The export took longer than output.export.timeoutSeconds: raise it; what is complete is kept."
        culprit = Culprit(FailureClass.CONFIGURATION, message)
    state, policy = _open(draft), _policy(draft)
    reaction = REACTIONS[culprit.failure_class].retry
    if reaction is Retry.NEVER or (reaction is Retry.COUNTED and state.failures >= policy.limit):
        _give_up(draft, culprit)
        return
    wait = backoff(policy, state.failures)
    at = conditions.format_time(draft.now + timedelta(seconds=wait))
    failures = state.failures + (1 if reaction is Retry.COUNTED else 0)
    draft.change(export=state.model_copy(update={"serial": state.serial + 1, "failures": failures, "next_start_at": at}))
    draft.drop_condition(conditions.START_BLOCKED)
    delete_verb(draft, workload)
    _show(draft, "BackOff", f"{culprit.message} The export is tried again at {at}.")
    draft.say("ExportRetrying", f"{culprit.failure_class}: {culprit.message} Next try at {at}.", kind="Warning", key=workload.uid)
    draft.wake_in(wait)


def _give_up(draft: Draft, culprit: Culprit) -> None:
    """The export stays undone until somebody asks for it again; the trained result is there all the same."""
    draft.change(export=_open(draft).model_copy(update={"state": FAILED, "next_start_at": None}))
    message = f"{culprit.message} {_advice(draft, culprit.failure_class)}"
    draft.condition(ConditionType.EXPORTED, "False", culprit.failure_class, culprit.message)
    draft.condition(ConditionType.EXPORT_FAILED, "True", culprit.failure_class, message)
    draft.drop_condition(conditions.START_BLOCKED)
    draft.say("ExportFailed", f"{culprit.failure_class}: {message}", kind="Warning", key=str(_open(draft).serial))
    _succeed(draft)


def _advice(draft: Draft, failure_class: FailureClass) -> str:
    command = f"kubectl finetune retry {draft.job.name}"
    again = f"The trained result is safe. Then annotate the job with {ANNOTATION_REQUEST}: retry/<token> ({command})."
    own = "" if failure_class is FailureClass.CONFIGURATION else f"{REACTIONS[failure_class].advice} "
    return f"{own}{again}"


def _succeed(draft: Draft) -> None:
    """The job is done, whatever became of the export."""
    draft.wake_in(0)
    if draft.status.phase is Phase.SUCCEEDED:
        return
    show_success(draft)


def show_success(draft: Draft) -> None:
    """The job has its result."""
    artifacts = draft.status.artifacts
    step = f" at step {artifacts.step}" if artifacts.step is not None else ""
    early = " (stopped early)" if artifacts.early_stopped else ""
    draft.change(finished_at=draft.now_text)
    draft.show(Phase.SUCCEEDED, conditions.end_reason(artifacts), f"Finished{step}{early}: {artifacts.final_uri}")
    draft.say("Succeeded", draft.message)


def export_is_gone(draft: Draft) -> bool:
    """Whether no pod of an export can write to the store any more; removes what is left of one."""
    workload = draft.observed.verbs.get(VERB)
    if workload is None:
        return all(pod.ended for pod in draft.observed.verb_pods if pod.component == VERB)
    if not workload.deleting:
        draft.do(DeleteJob(name=workload.name, uid=workload.uid, propagation="Foreground"))
    return False


def _open(draft: Draft) -> ExportStatus:
    assert draft.status.export is not None, "asked of an export that was begun"
    return draft.status.export


def _policy(draft: Draft) -> RetryPolicy:
    retry = draft.job.spec.get("retry") or {}
    return RetryPolicy(
        retry.get("limit", SCHEMA["retry.limit"]),
        retry.get("backoffSeconds", SCHEMA["retry.backoffSeconds"]),
        draft.settings.max_backoff_seconds,
    )


def _show(draft: Draft, reason: str, message: str) -> None:
    """Say how far the export is; a job that has succeeded stays so."""
    if draft.status.phase is not Phase.SUCCEEDED:
        draft.show(Phase.EXPORTING, reason, message)
    draft.condition(ConditionType.EXPORTED, "False", reason, message)


def _wanted(config: RunConfig) -> str:
    """What is asked for, in words."""
    output = config.spec.output
    words = {
        "merged": "the merged model",
        "gguf": f"GGUF files ({', '.join(output.export.gguf.quant)})",
        "push": f"a push to {output.push.repo_id}",
    }
    return ", ".join(words[name] for name in exports_of(config.spec))

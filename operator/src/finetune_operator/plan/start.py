"""Starting a run: the spec must be acceptable, a GPU job's preflight passed, the back-off over."""

from __future__ import annotations

from finetune_api.constants import FINALIZER
from finetune_api.contract.failures import REACTIONS, FailureClass, Retry
from finetune_api.contract.preflight import PreflightResult
from finetune_api.contract.run_config import RunConfig
from finetune_api.models.status import AttemptStatus, ConditionType, Phase
from finetune_api.resolve import identity_digest
from finetune_operator.plan.blocked import look_for_blocked
from finetune_operator.plan.configmap import build_config_map
from finetune_operator.plan.decision import CreateRun, PublishCa, SetFinalizers
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.ending import fail
from finetune_operator.plan.estimate import take_estimate, take_verdict
from finetune_operator.plan.failure import Culprit, find_culprit
from finetune_operator.plan.gate import may_cost
from finetune_operator.plan.gpu_types import fitting
from finetune_operator.plan.merge import append_attempt
from finetune_operator.plan.names import ANNOTATION_DIGEST
from finetune_operator.plan.observed import COMPONENT_TRAINER, Workload, parse_time
from finetune_operator.plan.retry import OUTCOME_PAUSED, RetryPolicy, after_failure
from finetune_operator.plan.run_config import build_run_config, config_digest, output_uri, own_store_secret, preflight_digest
from finetune_operator.plan.service import build_service
from finetune_operator.plan.specs import Accepted, Refused
from finetune_operator.plan.usage import at_rate_of
from finetune_operator.plan.verbs import build_verb, delete_verb, verb_pod
from finetune_operator.plan.workload import build_job

INVALID_LOOK_AGAIN_SECONDS = 30.0
"""A preset that is missing may appear, a quota be raised; nothing else tells."""


def start(draft: Draft, verdict: Accepted | Refused | None) -> None:
    """Start the next run as soon as nothing stands against it."""
    assert verdict is not None, "whoever may start a run has looked at the spec"
    if isinstance(verdict, Refused):
        draft.show(Phase.PENDING, verdict.reason, verdict.message)
        draft.wake_in(INVALID_LOOK_AGAIN_SECONDS)
        return
    if draft.observed.namespace_terminating:
        draft.show(Phase.PENDING, "NamespaceTerminating", f"Namespace {draft.job.namespace} is being deleted.")
        return
    if draft.observed.refusal:
        draft.show(Phase.PENDING, "RefusedByCluster", f"The API server does not take the objects of the run: {draft.observed.refusal}")
        draft.wake_in(INVALID_LOOK_AGAIN_SECONDS)
        return
    if _backing_off(draft):
        return
    if verdict.spec.output.retain == "Delete" and FINALIZER not in draft.job.finalizers:
        draft.do(SetFinalizers(finalizers=(*draft.job.finalizers, FINALIZER)))
        draft.show(Phase.VALIDATING, "Preparing", "The job's objects in the store will be deleted with it (output.retain: Delete).")
        draft.wake_in(0)
        return
    config = build_run_config(draft.job, verdict.spec, draft.status.run + 1, draft.settings, verdict.chosen)
    if _passed_preflight(draft, config) and may_cost(draft, config):
        _create(draft, verdict, _with_main_memory(draft, config))


def _backing_off(draft: Draft) -> bool:
    at = parse_time(draft.status.retry.next_start_at)
    if at is None or draft.now >= at:
        return False
    last = draft.last_attempt
    outcome = (last.outcome if last is not None else None) or "Retrying"
    draft.show(Phase.STARTING, "BackOff", f"The last run ended ({outcome}); the next one starts at {draft.status.retry.next_start_at}.")
    draft.wake_at(at)
    return True


def _passed_preflight(draft: Draft, config: RunConfig) -> bool:
    """Whether the job may take GPUs. A verdict holds as long as what it was made from; CPU jobs are checked inside the trainer.

    Of a TrainingMethod's job nothing is known beforehand but its parameters, which were judged already.
    """
    if config.topology.device != "gpu" or config.custom is not None:
        return True
    workload = draft.observed.verbs.get("preflight")
    wanted = preflight_digest(config, draft.settings.trainer_image)
    if draft.status.preflight_digest == wanted:
        if workload is not None and not workload.deleting:
            delete_verb(draft, workload)
        return True
    draft.show(Phase.VALIDATING, "Preflight", "Data, credentials, bucket and model are checked before GPUs are asked for.")
    if workload is None:
        draft.do(PublishCa(namespace=draft.job.namespace))
        draft.do(build_verb(draft.job, config, "preflight", draft.settings, deadline_seconds=draft.settings.verb_deadline_seconds))
    elif workload.deleting:
        draft.wake_in(1)
    elif workload.annotations.get(ANNOTATION_DIGEST) != config_digest(config):
        delete_verb(draft, workload)
        draft.wake_in(1)
    elif workload.complete:
        take_verdict(draft, workload)
        draft.change(preflight_digest=wanted)
        draft.say("PreflightPassed", "Data, credentials, bucket and model are in order.", key=wanted)
        draft.wake_in(0)
    elif workload.failed:
        _preflight_failed(draft, workload, wanted)
    else:
        _, hopeless = look_for_blocked(draft, [pod] if (pod := verb_pod(draft.observed, workload)) is not None else [])
        if hopeless is not None:
            fail(draft, hopeless)
            delete_verb(draft, workload)
    return False


def _with_main_memory(draft: Draft, config: RunConfig) -> RunConfig:
    """Add the main memory that preflight found the job's strategy to need (M-04)."""
    estimate = draft.status.estimate
    known = estimate.memory.pod_bytes if estimate is not None and estimate.memory is not None else None
    return config.model_copy(update={"pod_bytes": known}) if config.topology.device == "gpu" and config.custom is None else config


def _preflight_failed(draft: Draft, workload: Workload, digest: str) -> None:
    """A user error ends the job; a store that is away is asked again; anything else must not keep a job from training."""
    pod = verb_pod(draft.observed, workload)
    culprit = find_culprit([pod] if pod is not None else [], workload)
    reaction = REACTIONS[culprit.failure_class].retry
    if reaction is Retry.NEVER:
        found = take_estimate(draft, workload)
        fail(draft, culprit._replace(message=f"{culprit.message}{_fitting_gpus(draft, found)}"))
    elif culprit.failure_class is FailureClass.STORAGE_UNAVAILABLE:
        _preflight_again(draft, culprit)
    else:
        draft.change(preflight_digest=digest)
        draft.condition(ConditionType.ENVIRONMENT_READY, "Unknown", "PreflightInconclusive", culprit.message)
        draft.say("PreflightInconclusive", f"{culprit.message} The job starts without the check.", kind="Warning", key=digest)
        draft.wake_in(0)
        return
    delete_verb(draft, workload)


def _fitting_gpus(draft: Draft, found: PreflightResult | None) -> str:
    """What GPUs would do for a job that does not fit those it asks for; empty where that is not what is wrong."""
    memory = found.memory if found is not None else None
    if memory is None or memory.gpu_bytes is None or memory.total_bytes <= memory.gpu_bytes:
        return ""
    said = fitting(memory.total_bytes, draft.observed.gpu_memories)
    return f" {said}" if said else ""


def _preflight_again(draft: Draft, culprit: Culprit) -> None:
    retry = draft.job.spec.get("retry") or {}
    policy = RetryPolicy(retry.get("limit", 3), retry.get("backoffSeconds", 10), draft.settings.max_backoff_seconds)
    budget = after_failure(draft.status, culprit.failure_class, policy, draft.now)
    if budget is None:
        fail(draft, culprit)
    else:
        draft.change(retry=budget)
        draft.wake_in(0)


def _create(draft: Draft, verdict: Accepted, config: RunConfig) -> None:
    """Make the run and note it; the status is written only when all of its objects exist."""
    job, settings, run = draft.job, draft.settings, config.run
    reason = start_reason(draft)
    name = f"{job.name}-r{run}"
    draft.do(
        PublishCa(namespace=job.namespace),
        CreateRun(
            run=run,
            config_map=build_config_map(
                job, config, name, COMPONENT_TRAINER, settings, asked_grad_accum_steps=verdict.asked_grad_accum_steps
            ),
            service=build_service(job, config, settings),
            job=build_job(job, config, settings, reason=reason),
        ),
    )
    draft.change(
        run=run,
        identity_digest=draft.status.identity_digest or identity_digest(verdict.spec),
        resolved=verdict.resolved,
        output_uri=output_uri(job, verdict.spec, settings),
        store_secret=own_store_secret(settings),
        last_replicas=config.topology.replicas,
        started_at=draft.status.started_at or draft.now_text,
        finished_at=None,
        retry=draft.status.retry.model_copy(update={"next_start_at": None}),
        usage=at_rate_of(draft.status.usage, config),
    )
    lost = _begun_anew(draft, config)
    if lost:
        draft.change(usage=draft.status.usage.model_copy(update={"lost_steps": draft.status.usage.lost_steps + lost}))
    append_attempt(draft, AttemptStatus(run=run, reason=reason, started_at=draft.now_text, lost_steps=lost))
    resumed = reason == "Resumed"
    draft.show(
        Phase.RESUMING if resumed else Phase.STARTING, "AwaitingPods", f"Run {run} was created with {config.topology.replicas} pod(s)."
    )
    latest = draft.status.checkpoints.latest
    whence = f" It goes on from checkpoint-{latest.step} of attempt {latest.attempt}." if latest is not None and run > 1 else ""
    draft.say(
        "Resumed" if resumed else "RunCreated",
        f"Run {run} ({reason}): Job {name} with {config.topology.replicas} pod(s).{whence}",
        key=str(run),
    )


def _begun_anew(draft: Draft, config: RunConfig) -> int:
    """Steps that a method which cannot resume trains once more."""
    last = draft.last_attempt
    if config.custom is None or config.custom.spec.resumable or last is None:
        return 0
    return last.to_step or 0


def start_reason(draft: Draft) -> str:
    """Why the next attempt is started."""
    last = draft.last_attempt
    if last is None:
        return "Created"
    if last.outcome == OUTCOME_PAUSED:
        return "Resumed"
    return last.outcome if last.outcome in (FailureClass.NODE_LOST, FailureClass.PREEMPTED) else "Retried"

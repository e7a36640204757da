"""Deleting a job whose objects in the store go with it. Without the finalizer the garbage collector does everything.

The finalizer never outlives a terminating namespace (nothing can be created there), a missing Secret (the pod says so) or
``output.cleanupTimeoutSeconds``.
"""

from __future__ import annotations

from datetime import timedelta

from finetune_api.constants import FINALIZER
from finetune_api.contract.run_config import RunConfig
from finetune_api.defaults import BASE
from finetune_operator.plan.decision import DeleteJob, SetFinalizers
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.export import export_is_gone
from finetune_operator.plan.status import living_pods
from finetune_operator.plan.verbs import build_verb, verb_answer


def remove(draft: Draft) -> None:
    """Decide on a job that is being deleted."""
    job = draft.job
    if FINALIZER not in job.finalizers or job.deleted_at is None:
        return
    config = draft.observed.last_run.config if draft.observed.last_run is not None else None
    deadline = job.deleted_at + timedelta(seconds=_timeout(draft, config))
    workload = draft.observed.workload
    if draft.observed.namespace_terminating:
        _let_go(draft, "the namespace is being deleted")
    elif draft.status.run == 0:
        _let_go(draft, None)
    elif draft.now >= deadline:
        _let_go(draft, "output.cleanupTimeoutSeconds has passed")
    elif workload is not None and not workload.deleting:
        draft.do(DeleteJob(name=workload.name, uid=workload.uid, propagation="Foreground"))
        draft.wake_at(deadline)
    elif living_pods(draft) or not export_is_gone(draft):
        draft.wake_at(deadline)
    elif config is None:
        _let_go(draft, "the ConfigMap of its last run is gone")
    else:
        _clean(draft, config)
        draft.wake_at(deadline)


def _clean(draft: Draft, config: RunConfig) -> None:
    workload = draft.observed.verbs.get("cleanup")
    if workload is None:
        remaining = _timeout(draft, config)
        draft.do(build_verb(draft.job, config, "cleanup", draft.settings, deadline_seconds=remaining))
    elif workload.complete:
        draft.say("StoreCleaned", f"Everything under {config.store.uri} was deleted.")
        _let_go(draft, None)
    elif workload.failed:
        answer = verb_answer(draft.observed, workload)
        _let_go(draft, answer.message if answer is not None and answer.message else workload.message or "the cleanup pod failed")


def _timeout(draft: Draft, config: RunConfig | None) -> int:
    if config is not None:
        return config.spec.output.cleanup_timeout_seconds
    written = (draft.job.spec.get("output") or {}).get("cleanupTimeoutSeconds")
    return int(written if written is not None else BASE["output.cleanupTimeoutSeconds"])


def _let_go(draft: Draft, problem: str | None) -> None:
    """Drop the finalizer; what stays behind is named."""
    draft.do(SetFinalizers(finalizers=tuple(name for name in draft.job.finalizers if name != FINALIZER)))
    if problem is not None:
        draft.say("StoreNotCleaned", f"Objects stay behind under {draft.status.output_uri}: {problem}.", kind="Warning")

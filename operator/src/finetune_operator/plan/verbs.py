"""Short CPU pods of the trainer image that see the store for the operator: preflight, inspect, cleanup (export: export_pod)."""

from __future__ import annotations

from typing import Literal

from finetune_api.constants import verb_name
from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.termination import TerminationMessage
from finetune_operator.plan.configmap import build_config_map
from finetune_operator.plan.decision import CreateVerb, DeleteJob, DeleteLeftover
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.failure import read_message
from finetune_operator.plan.names import ANNOTATION_DIGEST, labels, metadata
from finetune_operator.plan.observed import JobObject, Observed, Pod, Workload
from finetune_operator.plan.pod import build_pod_metadata, build_pod_spec
from finetune_operator.plan.run_config import config_digest
from finetune_operator.plan.workload import build_short_job
from finetune_operator.settings import PlanSettings

Verb = Literal["preflight", "inspect", "cleanup"]


def build_verb(job: JobObject, config: RunConfig, verb: Verb, settings: PlanSettings, *, deadline_seconds: int) -> CreateVerb:
    """Job and ConfigMap of a verb; one pod, given up after ``deadline_seconds``."""
    name = verb_name(job.name, verb, config.run)
    meta = metadata(job, name, verb, config.run, version=settings.version, annotations={ANNOTATION_DIGEST: config_digest(config)})
    template = {"metadata": build_pod_metadata(config, labels(job, verb, config.run)), "spec": build_pod_spec(config, name, verb, settings)}
    return CreateVerb(
        verb=verb,
        config_map=build_config_map(job, config, name, verb, settings),
        job=build_short_job(meta, template, deadline_seconds=deadline_seconds),
    )


def verb_pod(observed: Observed, workload: Workload) -> Pod | None:
    """The pod of a verb."""
    return next((pod for pod in observed.verb_pods if pod.owner_uid == workload.uid), None)


def verb_answer(observed: Observed, workload: Workload) -> TerminationMessage | None:
    """What an ended verb left behind; None when it left nothing readable."""
    pod = verb_pod(observed, workload)
    return read_message(pod.termination_message) if pod is not None else None


def delete_verb(draft: Draft, workload: Workload) -> None:
    """Remove a verb's objects."""
    for leftover in draft.observed.leftovers or ():
        if leftover.name == workload.name:
            draft.do(DeleteLeftover(kind=leftover.kind, name=leftover.name, uid=leftover.uid))
    draft.do(DeleteJob(name=workload.name, uid=workload.uid, propagation="Background"))

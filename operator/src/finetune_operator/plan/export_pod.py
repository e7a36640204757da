"""The Job of an export: one pod without GPUs, with resources of its own."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.constants import verb_name
from finetune_api.contract.pod import memory_of_weights
from finetune_api.contract.run_config import RunConfig
from finetune_operator.plan.configmap import build_config_map
from finetune_operator.plan.decision import CreateVerb
from finetune_operator.plan.names import ANNOTATION_DIGEST, labels, metadata
from finetune_operator.plan.observed import JobObject, Manifest
from finetune_operator.plan.pod import build_pod_metadata, build_pod_spec
from finetune_operator.plan.run_config import config_digest
from finetune_operator.plan.workload import build_short_job
from finetune_operator.settings import PlanSettings

VERB = "export"
DEFAULT_CPU = "500m"


def build_export(job: JobObject, config: RunConfig, serial: int, facts: Mapping[str, str], settings: PlanSettings) -> CreateVerb:
    """Job and ConfigMap of the try ``serial``; ``facts`` are the trainer's (``totalParameters``, ``dtype``)."""
    name = verb_name(job.name, VERB, serial)
    pod = build_pod_spec(config, name, VERB, settings)
    container = {**pod["containers"][0], "resources": export_resources(config, facts)}
    meta = metadata(job, name, VERB, config.run, version=settings.version, annotations={ANNOTATION_DIGEST: config_digest(config)})
    template = {"metadata": build_pod_metadata(config, labels(job, VERB, config.run)), "spec": {**pod, "containers": [container]}}
    return CreateVerb(
        verb=VERB,
        config_map=build_config_map(job, config, name, VERB, settings),
        job=build_short_job(meta, template, deadline_seconds=config.spec.output.export.timeout_seconds),
    )


def export_resources(config: RunConfig, facts: Mapping[str, str]) -> Manifest:
    """As the job says; else half a CPU, and memory for the model once, with a quarter to spare for the layer that is being merged."""
    wanted = config.spec.output.export
    requests: Manifest = {"cpu": wanted.cpu or DEFAULT_CPU}
    if wanted.memory is not None:
        return {"requests": {**requests, "memory": wanted.memory}, "limits": {"memory": wanted.memory}}
    return {"requests": {**requests, "memory": memory_of_weights(facts)}}

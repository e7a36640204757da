"""The Job of a run: Indexed, one pod per replica, ended as a whole by the first failure."""

from __future__ import annotations

import json
from collections.abc import Mapping

from finetune_api.constants import run_name
from finetune_api.contract.run_config import RunConfig
from finetune_operator.plan.names import (
    ANNOTATION_DIGEST,
    ANNOTATION_RANKS,
    ANNOTATION_START_REASON,
    ANNOTATION_USAGE_BASE,
    labels,
    metadata,
)
from finetune_operator.plan.observed import COMPONENT_TRAINER, JobObject, Manifest
from finetune_operator.plan.pod import build_pod_spec
from finetune_operator.plan.run_config import config_digest
from finetune_operator.settings import PlanSettings


def build_job(job: JobObject, config: RunConfig, settings: PlanSettings, *, reason: str, usage_base: Mapping[str, float]) -> Manifest:
    """Job of a run. ``reason`` says why it is started; ``usage_base`` is the usage before it, to which its own is added."""
    name = run_name(job.name, config.run)
    annotations = {
        ANNOTATION_DIGEST: config_digest(config),
        ANNOTATION_START_REASON: reason,
        ANNOTATION_RANKS: str(config.topology.world_size),
        ANNOTATION_USAGE_BASE: json.dumps(dict(usage_base), sort_keys=True),
    }
    pod = build_pod_spec(config, name, "train", settings)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(job, name, COMPONENT_TRAINER, config.run, version=settings.version, annotations=annotations),
        "spec": {
            "completionMode": "Indexed",
            "completions": config.topology.replicas,
            "parallelism": config.topology.replicas,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {"metadata": {"labels": labels(job, COMPONENT_TRAINER, config.run)}, "spec": {**pod, "subdomain": name}},
        },
    }

"""The Job of a run: Indexed, one pod per replica, ended as a whole by the first failure; and that of a verb: one pod, once."""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.constants import run_name
from finetune_api.contract import env
from finetune_api.contract.run_config import RunConfig
from finetune_operator.plan.kueue import queue_labels
from finetune_operator.plan.names import (
    ANNOTATION_DEVICES,
    ANNOTATION_DIGEST,
    ANNOTATION_METHOD,
    ANNOTATION_START_REASON,
    labels,
    metadata,
)
from finetune_operator.plan.observed import COMPONENT_TRAINER, JobObject, Manifest
from finetune_operator.plan.pod import build_pod_metadata, build_pod_spec
from finetune_operator.plan.run_config import config_digest
from finetune_operator.settings import PlanSettings


def build_job(job: JobObject, config: RunConfig, settings: PlanSettings, *, reason: str) -> Manifest:
    """Job of a run. ``reason`` says why it is started."""
    name = run_name(job.name, config.run)
    annotations = {
        ANNOTATION_DIGEST: config_digest(config),
        ANNOTATION_START_REASON: reason,
        ANNOTATION_DEVICES: str(count_devices(config)),
    }
    if config.custom is not None:
        annotations[ANNOTATION_METHOD] = config.custom.name
    pod = build_pod_spec(config, name, "train", settings)
    queue = queue_labels(config.spec.resources)
    meta = metadata(job, name, COMPONENT_TRAINER, config.run, version=settings.version, annotations=annotations)
    own = labels(job, COMPONENT_TRAINER, config.run)
    subdomain = {"subdomain": name} if config.topology.replicas > 1 else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**meta, "labels": {**meta["labels"], **queue}},
        "spec": {
            **({"suspend": True} if queue else {}),  # from the first moment, as Kueue asks: no pod before it is admitted
            "completionMode": "Indexed",
            "completions": config.topology.replicas,
            "parallelism": config.topology.replicas,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "template": {"metadata": _pod_metadata(config, own, settings), "spec": {**pod, **subdomain}},
        },
    }


def build_short_job(metadata: Manifest, template: Manifest, *, deadline_seconds: int) -> Manifest:
    """Job of a verb; its pod is given up after ``deadline_seconds``."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline_seconds,
            "podReplacementPolicy": "Failed",
            "template": template,
        },
    }


def count_devices(config: RunConfig) -> int:
    """GPUs the run holds, ranks on CPU: the unit of its usage."""
    topology = config.topology
    return topology.replicas * config.spec.resources.gpus_per_replica if topology.device == "gpu" else topology.world_size


def _pod_metadata(config: RunConfig, own: Mapping[str, str], settings: PlanSettings) -> Manifest:
    """Labels of a run's pods, and where a Prometheus that goes by annotations finds their metrics (unless the job says otherwise)."""
    has_metrics = settings.scrape_annotations and config.custom is None
    scrape = {f"prometheus.io/{name}": value for name, value in _SCRAPE.items()} if has_metrics else {}
    metadata = build_pod_metadata(config, own)
    return {**metadata, "annotations": {**scrape, **metadata.get("annotations", {})}}


_SCRAPE = {"scrape": "true", "port": str(env.METRICS_PORT), "path": "/metrics"}

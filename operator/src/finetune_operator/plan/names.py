"""Names, labels and owner references of the objects that belong to a job."""

from __future__ import annotations

import re

from finetune_api.constants import (
    ANNOTATION_OPERATOR_VERSION,
    API_VERSION,
    GROUP,
    KIND,
    LABEL_COMPONENT,
    LABEL_JOB,
    LABEL_MANAGED_BY,
    LABEL_RUN,
    MANAGED_BY,
)
from finetune_operator.plan.observed import COMPONENT_TRAINER, JobObject, Manifest

ANNOTATION_DIGEST = f"{GROUP}/config-digest"
"""Digest of the run config an object was made from: tells a finished creation from one that broke off."""
ANNOTATION_ASKED = f"{GROUP}/asked"
"""JSON: values of the job that the run had to deviate from."""
ANNOTATION_DEVICES = f"{GROUP}/devices"
"""GPUs of the run, ranks on CPU: what a second of it costs."""
ANNOTATION_METHOD = f"{GROUP}/method"
"""The TrainingMethod a run was made from; absent for the built-in ones."""
ANNOTATION_START_REASON = f"{GROUP}/start-reason"
"""Why the run was started; kept with it in case the status write after its creation is lost."""


def owner_reference(job: JobObject) -> Manifest:
    """Makes an object go with its job."""
    return {"apiVersion": API_VERSION, "kind": KIND, "name": job.name, "uid": job.uid, "controller": True, "blockOwnerDeletion": True}


def labels(job: JobObject, component: str, run: int) -> dict[str, str]:
    """Labels of everything that belongs to a run or verb."""
    return {LABEL_JOB: job.name, LABEL_RUN: str(run), LABEL_COMPONENT: component, LABEL_MANAGED_BY: MANAGED_BY}


def metadata(job: JobObject, name: str, component: str, run: int, *, version: str, annotations: dict[str, str] | None = None) -> Manifest:
    """Metadata of a child."""
    return {
        "name": name,
        "namespace": job.namespace,
        "labels": labels(job, component, run),
        "annotations": {ANNOTATION_OPERATOR_VERSION: version, **(annotations or {})},
        "ownerReferences": [owner_reference(job)],
    }


def pod_selector(name: str) -> str:
    """Label selector of a job's trainer pods, for ``/scale`` and ``kubectl get pods -l``."""
    return f"{LABEL_JOB}={name},{LABEL_COMPONENT}={COMPONENT_TRAINER}"


def run_of(job: str, workload: str) -> int | None:
    """Number of the run whose Job has this name; None for any other name."""
    match = re.fullmatch(re.escape(job) + r"-r([1-9][0-9]*)", workload)
    return int(match[1]) if match else None

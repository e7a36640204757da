"""The immutable ConfigMap of a run or verb."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping

from pydantic import ValidationError

from finetune_api.contract.custom import JOB_FILE, job_document
from finetune_api.contract.env import RUN_CONFIG_PATH
from finetune_api.contract.run_config import RunConfig
from finetune_operator.plan.names import ANNOTATION_ASKED, ANNOTATION_DIGEST, metadata
from finetune_operator.plan.observed import COMPONENT_TRAINER, JobObject, LastRun, Manifest
from finetune_operator.plan.run_config import config_digest
from finetune_operator.plan.topology import GRAD_ACCUM
from finetune_operator.settings import PlanSettings

CONFIG_KEY = posixpath.basename(RUN_CONFIG_PATH)
JOB_KEY = posixpath.basename(JOB_FILE)


def build_config_map(
    job: JobObject, config: RunConfig, name: str, component: str, settings: PlanSettings, *, asked_grad_accum_steps: int | None = None
) -> Manifest:
    """ConfigMap with the run config. ``asked_grad_accum_steps``: what the job wrote, where a resize made the run use another value."""
    annotations = {ANNOTATION_DIGEST: config_digest(config)}
    if asked_grad_accum_steps is not None:
        annotations[ANNOTATION_ASKED] = json.dumps({GRAD_ACCUM: asked_grad_accum_steps})
    data = {CONFIG_KEY: config.to_json()}
    if config.custom is not None and component == COMPONENT_TRAINER:
        data[JOB_KEY] = job_document(config).to_json()
    return immutable(metadata(job, name, component, config.run, version=settings.version, annotations=annotations), data)


def immutable(metadata: Manifest, data: Mapping[str, str]) -> Manifest:
    """A ConfigMap that nobody changes."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True, "data": dict(data)}


def read_last_run(manifest: Manifest | None) -> LastRun | None:
    """The inverse: what a run was made from. None when it is gone or not readable by this version."""
    if manifest is None:
        return None
    text = (manifest.get("data") or {}).get(CONFIG_KEY, "")
    asked = ((manifest["metadata"].get("annotations")) or {}).get(ANNOTATION_ASKED, "{}")
    try:
        return LastRun(config=RunConfig.model_validate_json(text), asked=json.loads(asked))
    except (ValidationError, json.JSONDecodeError):
        return None

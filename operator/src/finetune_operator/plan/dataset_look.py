"""The pod that looks at the data of a Dataset: as preflight's, short, on a CPU, without API credentials."""

from __future__ import annotations

from typing import Any

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.look import DatasetIdentity, LookConfig
from finetune_api.contract.pod import identity_environment
from finetune_api.models.dataset import DatasetSpec
from finetune_api.resolve import digest
from finetune_operator.plan.configmap import CONFIG_KEY, immutable
from finetune_operator.plan.dataset_objects import COMPONENT_LOOK, DatasetObject, look_labels, look_metadata, look_name
from finetune_operator.plan.decision import CreateVerb
from finetune_operator.plan.names import ANNOTATION_DIGEST
from finetune_operator.plan.observed import Manifest
from finetune_operator.plan.pod import build_container, pod_around, trainer_program
from finetune_operator.plan.volumes import build_look_volumes
from finetune_operator.plan.workload import build_short_job
from finetune_operator.settings import PlanSettings

NOT_OF_THE_DATA = ("display_name", "description", "origin")
"""Fields whose change needs no new look."""


def build_look_config(dataset: DatasetObject, settings: PlanSettings) -> LookConfig:
    """What the next look is told; the spec must be valid."""
    written: dict[str, Any] = {name: value for name, value in dataset.spec.items() if value is not None}
    spec = DatasetSpec.model_validate(written).model_copy(update=dict.fromkeys(NOT_OF_THE_DATA))
    return LookConfig(
        contract_version=CONTRACT_VERSION,
        dataset=DatasetIdentity(name=dataset.name, namespace=dataset.namespace, uid=dataset.uid),
        look=dataset.status.looks + 1,
        spec=spec,
        offline=settings.trainer_offline,
    )


def source_digest(config: LookConfig) -> str:
    """Digest of what a look looks at: equal ones find the same, as long as the data stays."""
    return digest({"spec": config.spec.model_dump(mode="json", by_alias=True, exclude_none=True), "offline": config.offline})


def look_digest(config: LookConfig) -> str:
    """Digest of all that a look is told."""
    return digest(config.model_dump(mode="json", by_alias=True, exclude_none=True))


def build_look(dataset: DatasetObject, config: LookConfig, settings: PlanSettings) -> CreateVerb:
    """Job and ConfigMap of a look; one pod, given up after a while."""
    meta = look_metadata(dataset, config.look, version=settings.version, annotations={ANNOTATION_DIGEST: look_digest(config)})
    pod = _pod_spec(config, look_name(dataset.name, config.look), settings)
    template = {"metadata": {"labels": look_labels(dataset, config.look)}, "spec": pod}
    return CreateVerb(
        verb=COMPONENT_LOOK,
        config_map=immutable(meta, {CONFIG_KEY: config.to_json()}),
        job=build_short_job(meta, template, deadline_seconds=settings.verb_deadline_seconds),
    )


def _pod_spec(config: LookConfig, config_map: str, settings: PlanSettings) -> Manifest:
    image = settings.trainer_image
    container = build_container(trainer_program(image, COMPONENT_LOOK, settings), identity_environment(image), settings)
    return pod_around(container, build_look_volumes(config.spec, config_map, settings), settings)

"""The pod that looks at the data of a Dataset: as preflight's, short, on a CPU, without API credentials."""

from __future__ import annotations

import posixpath
from typing import Any

from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.look import DatasetIdentity, LookConfig
from finetune_api.models.dataset import DatasetSpec
from finetune_api.resolve import digest
from finetune_operator.plan.dataset_objects import COMPONENT_LOOK, DatasetObject, look_labels, look_metadata, look_name
from finetune_operator.plan.decision import CreateVerb
from finetune_operator.plan.names import ANNOTATION_DIGEST
from finetune_operator.plan.observed import Manifest
from finetune_operator.plan.outside import build_outside_environment
from finetune_operator.plan.pod import (
    SHORT_VERB_RESOURCES,
    container_security,
    dead_node_tolerations,
    identity_environment,
    pod_security,
)
from finetune_operator.plan.volumes import build_look_volumes
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
    template = {
        "metadata": {"labels": look_labels(dataset, config.look)},
        "spec": _pod_spec(config, look_name(dataset.name, config.look), settings),
    }
    return CreateVerb(
        verb=COMPONENT_LOOK,
        config_map={
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "immutable": True,
            "data": {posixpath.basename(env.RUN_CONFIG_PATH): config.to_json()},
        },
        job={
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": meta,
            "spec": {
                "completions": 1,
                "parallelism": 1,
                "backoffLimit": 0,
                "activeDeadlineSeconds": settings.verb_deadline_seconds,
                "podReplacementPolicy": "Failed",
                "template": template,
            },
        },
    )


def _pod_spec(config: LookConfig, config_map: str, settings: PlanSettings) -> Manifest:
    mounted = build_look_volumes(config.spec, config_map, settings)
    pull = {"imagePullSecrets": [{"name": name} for name in settings.image_pull_secrets]} if settings.image_pull_secrets else {}
    return {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": pod_security(),
        "tolerations": dead_node_tolerations([], settings.unreachable_toleration_seconds),
        "containers": [
            {
                "name": env.TRAINER_CONTAINER,
                "image": settings.trainer_image,
                "imagePullPolicy": settings.image_pull_policy,
                "args": [COMPONENT_LOOK],
                "env": [*identity_environment(settings.trainer_image), *build_outside_environment(settings)],
                "resources": SHORT_VERB_RESOURCES,
                "securityContext": container_security(),
                "terminationMessagePath": env.TERMINATION_MESSAGE_PATH,
                "terminationMessagePolicy": "FallbackToLogsOnError",
                "volumeMounts": [m.mount for m in mounted],
            }
        ],
        "volumes": [m.volume for m in mounted],
        **pull,
    }

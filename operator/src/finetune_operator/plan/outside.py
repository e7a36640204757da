"""What trainer pods need to reach the world outside the cluster: proxies and the CAs to trust."""

from __future__ import annotations

from finetune_api.contract.pod import outside_environment
from finetune_operator.plan.observed import Manifest
from finetune_operator.settings import PlanSettings


def build_outside_environment(settings: PlanSettings) -> list[Manifest]:
    """Variables that every library understands, and the name of the CA bundle, which the trainer turns into theirs."""
    return outside_environment(
        http_proxy=settings.trainer_http_proxy,
        https_proxy=settings.trainer_https_proxy,
        no_proxy=settings.trainer_no_proxy,
        ca_key=settings.trainer_ca_key if settings.trainer_ca_configmap else None,
    )


def trust_source(settings: PlanSettings) -> Manifest | None:
    """Volume source of the CA bundle; optional, so that a namespace without it does not keep its pods from starting."""
    if not settings.trainer_ca_configmap:
        return None
    return {"configMap": {"name": settings.trainer_ca_configmap, "optional": True}}

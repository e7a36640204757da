"""What trainer pods need to reach the world outside the cluster: proxies and the CAs to trust."""

from __future__ import annotations

from finetune_api.contract import env
from finetune_operator.plan.observed import Manifest
from finetune_operator.settings import PlanSettings

IN_CLUSTER = ("localhost", "127.0.0.1", ".svc", ".cluster.local")
"""Never asked through a proxy."""


def build_outside_environment(settings: PlanSettings) -> list[Manifest]:
    """Variables that every library understands, and the name of the CA bundle, which the trainer turns into theirs."""
    values = {"HTTP_PROXY": settings.trainer_http_proxy, "HTTPS_PROXY": settings.trainer_https_proxy}
    if any(values.values()):
        values["NO_PROXY"] = ",".join((*IN_CLUSTER, *filter(None, [settings.trainer_no_proxy])))
    if settings.trainer_ca_configmap:
        values[env.ENV_CA_BUNDLE] = f"{env.CA_BUNDLE_DIR}/{settings.trainer_ca_key}"
    return [{"name": name, "value": value} for name, value in values.items() if value]


def trust_source(settings: PlanSettings) -> Manifest | None:
    """Volume source of the CA bundle; optional, so that a namespace without it does not keep its pods from starting."""
    if not settings.trainer_ca_configmap:
        return None
    return {"configMap": {"name": settings.trainer_ca_configmap, "optional": True}}

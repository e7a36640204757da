"""The headless Service that gives the pods of a run with several of them their DNS names."""

from __future__ import annotations

from finetune_api.constants import run_name
from finetune_api.contract.env import MASTER_PORT
from finetune_api.contract.run_config import RunConfig
from finetune_operator.plan.names import labels, metadata
from finetune_operator.plan.observed import COMPONENT_TRAINER, JobObject, Manifest
from finetune_operator.settings import PlanSettings


def build_service(job: JobObject, config: RunConfig, settings: PlanSettings) -> Manifest | None:
    """Names resolve before the pods are ready: the ranks meet before any of them could be. None: those of one pod meet in it."""
    run = config.run
    if config.topology.replicas == 1:
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(job, run_name(job.name, run), COMPONENT_TRAINER, run, version=settings.version),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": labels(job, COMPONENT_TRAINER, run),
            "ports": [{"name": "rendezvous", "port": MASTER_PORT, "targetPort": MASTER_PORT}],
        },
    }

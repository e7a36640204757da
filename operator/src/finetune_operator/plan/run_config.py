"""The run config: what the trainer of a run is told."""

from __future__ import annotations

from typing import NamedTuple

from finetune_api.constants import DEFAULT_STORE_SECRET
from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.progress import progress_path
from finetune_api.contract.run_config import (
    ChosenDataset,
    ChosenGpuType,
    ChosenModel,
    CustomMethod,
    JobIdentity,
    ProgressConfig,
    RunConfig,
    StoreConfig,
)
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.resolve import digest
from finetune_operator.plan.observed import JobObject
from finetune_operator.plan.topology import build_topology
from finetune_operator.settings import PlanSettings

_NOT_CHECKED_BEFOREHAND = {
    "replicas", "suspend", "desiredState", "displayName", "presetRef", "pausePolicy", "retry", "logging", "distributed",
}  # fmt: skip
"""Fields a preflight does not look at: a change of them needs no new one."""


def output_uri(job: JobObject, spec: FineTuneJobSpec, settings: PlanSettings) -> str:
    """Prefix of everything the job writes: as asked for, else one that no other job ever has."""
    uri = spec.output.uri or f"s3://{settings.storage_bucket}/{job.namespace}/{job.name}/{job.uid}"
    return uri.rstrip("/")


def own_store_secret(settings: PlanSettings) -> str | None:
    """The installation's Secret with the store's keys; None: it has the usual name."""
    return settings.storage_secret if settings.storage_secret != DEFAULT_STORE_SECRET else None


class Chosen(NamedTuple):
    """Objects that a job names, as its first run found them."""

    custom: CustomMethod | None = None
    """The TrainingMethod that trains."""
    base_model: ChosenModel | None = None
    """The BaseModel it starts from."""
    dataset: ChosenDataset | None = None
    """The Dataset it trains on."""
    gpu_type: ChosenGpuType | None = None
    """The GpuType it trains on."""


NOTHING = Chosen()


def build_run_config(job: JobObject, spec: FineTuneJobSpec, run: int, settings: PlanSettings, chosen: Chosen = NOTHING) -> RunConfig:
    """Everything the trainer is told; ``spec`` is resolved and has at least one replica."""
    return RunConfig(
        contract_version=CONTRACT_VERSION,
        job=JobIdentity(name=job.name, namespace=job.namespace, uid=job.uid),
        run=run,
        spec=spec,
        topology=build_topology(job, spec, run),
        store=StoreConfig(
            uri=output_uri(job, spec, settings),
            endpoint=settings.storage_endpoint,
            region=settings.storage_region,
            secret=own_store_secret(settings),
        ),
        progress=ProgressConfig(
            url=settings.progress_url + progress_path(job.namespace, job.name), interval_seconds=settings.progress_interval_seconds
        ),
        offline=settings.trainer_offline,
        custom=chosen.custom,
        base_model=chosen.base_model,
        dataset=chosen.dataset,
        gpu_type=chosen.gpu_type,
    )


def config_digest(config: RunConfig) -> str:
    """Digest of a run config; equal digests run the same."""
    return digest(config.model_dump(mode="json", by_alias=True, exclude_none=True))


def preflight_digest(config: RunConfig, image: str) -> str:
    """Digest of what a preflight looks at, and with which trainer ``image``: a run with a digest that has passed needs no other check."""
    document = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    spec = {name: value for name, value in document["spec"].items() if name not in _NOT_CHECKED_BEFOREHAND}
    checked = {"spec": spec, "store": document["store"], "image": config.spec.resources.image or image}
    strategy = config.spec.distributed.strategy
    # Whether it fits the GPU, and what a pod needs of main memory, depends on ranks and strategy.
    if config.spec.resources.gpu_memory is not None or strategy.endswith("_offload"):
        checked |= {"ranks": config.topology.world_size, "strategy": strategy}
    return digest(checked)

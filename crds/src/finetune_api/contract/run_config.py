"""The run config: everything the trainer is told, one immutable document per run."""

from __future__ import annotations

from typing import Literal

from finetune_api.contract.base import ContractModel
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.models.training_method import TrainingMethodSpec


class JobIdentity(ContractModel):
    """Which FineTuneJob this is."""

    name: str
    namespace: str
    uid: str


class Topology(ContractModel):
    """The rank group: ``replicas`` pods with ``processes_per_replica`` ranks each.

    Rank = pod index x processes_per_replica + local rank.
    """

    replicas: int
    processes_per_replica: int
    device: Literal["gpu", "cpu"]
    master_addr: str
    """DNS name of pod 0 (localhost for one pod)."""
    master_port: int

    @property
    def world_size(self) -> int:
        """Ranks in the group."""
        return self.replicas * self.processes_per_replica


class StoreConfig(ContractModel):
    """Where the job's objects are. Credentials are files, never here."""

    uri: str
    """``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``file:///directory`` (local runs), without a trailing slash."""
    endpoint: str | None = None
    """S3 endpoint URL, for example http://minio.finetune.svc:9000. The Secret's AWS_ENDPOINT_URL wins."""
    region: str | None = None
    secret: str | None = None
    """Name of the Secret with the store's keys where jobs name none, for messages. Unset: finetune-storage."""


class ProgressConfig(ContractModel):
    """Where rank 0's supervisor posts progress. Absent in local runs."""

    url: str
    """Full URL of this job's progress resource."""
    interval_seconds: float = 5.0
    """Longest time between two posts, also between steps."""


class CustomMethod(ContractModel):
    """The TrainingMethod of a job as it was when the job first ran; later runs are made from the same."""

    name: str
    spec: TrainingMethodSpec


class ChosenModel(ContractModel):
    """The BaseModel of a job as it was when the job first ran. The values it set are in the spec; later runs keep them."""

    name: str
    sets: list[str]
    """Paths of the fields it decided."""
    trusts_code: bool = False
    """It allows the code beside the weights to be run."""


class ChosenDataset(ContractModel):
    """The Dataset of a job as it was when the job first ran, likewise."""

    name: str
    sets: list[str]
    """Paths of the fields it decided."""


class ChosenGpuType(ContractModel):
    """The GpuType of a job as it was when the job first ran with it; later runs are made from the same, at the same price."""

    name: str
    spec: GpuTypeSpec


class RunConfig(ContractModel):
    """What one run of a job does; mounted at :data:`finetune_api.contract.env.RUN_CONFIG_PATH`."""

    contract_version: int
    job: JobIdentity
    run: int
    """Number of the run, from 1: one Job, Service and ConfigMap each."""
    spec: FineTuneJobSpec
    """The resolved spec: every default filled in."""
    topology: Topology
    store: StoreConfig
    progress: ProgressConfig | None = None
    offline: bool = False
    """True: the hub is not asked for anything."""
    custom: CustomMethod | None = None
    """Set when an administrator's program trains; then ``spec.method`` is not."""
    base_model: ChosenModel | None = None
    """Set when the job chose its model from the catalogue. For the operator; ``spec.model.uri`` is the address."""
    dataset: ChosenDataset | None = None
    """Set when the job chose a Dataset, likewise."""
    pod_bytes: int | None = None
    """Main memory requested of each pod where the job says nothing: what preflight found its strategy to need. For the operator."""
    gpu_type: ChosenGpuType | None = None
    """Set when the job chose a GpuType. For the operator; the memory is in ``spec.resources.gpuMemory``."""

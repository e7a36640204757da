"""GpuType: an entry of the administrators' catalogue of GPUs to train on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_api.constants import GPU_RESOURCE
from finetune_api.models.base import ApiModel, Quantity, api_field
from finetune_api.models.scheduling import LABEL_TEXT_PATTERN, LabelKey, LabelText, Toleration

CAPABILITY_PATTERN = r"^[1-9][0-9]?\.[0-9]$"
RATE_PATTERN = r"^[0-9]{1,6}(\.[0-9]{1,6})?$"
CURRENCY_PATTERN = r"^[A-Z]{3}$"
RESOURCE_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"

Region = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=LABEL_TEXT_PATTERN)]


class GpuTypeSpec(ApiModel):
    """A kind of GPU: jobs choose it by resources.gpuType."""

    description: Annotated[str, StringConstraints(max_length=2048)] | None = api_field(default=None)
    """Which GPU it is, and what it is meant for."""
    memory: Quantity = api_field(requirement="L-02 N-01")
    """Memory of one GPU, for example 81559Mi (nvidia-smi shows it): the resources.gpuMemory of jobs that do not say their own."""
    compute_capability: Annotated[str, StringConstraints(max_length=4, pattern=CAPABILITY_PATTERN)] | None = api_field(
        default=None, requirement="L-02 AC-23"
    )
    """CUDA compute capability, for example "9.0". Below 8.0 jobs with bfloat16 or TF32 are refused before a GPU is asked for. Unset: not
    known."""
    hourly_rate: Annotated[str, StringConstraints(max_length=13, pattern=RATE_PATTERN)] | None = api_field(
        default=None, requirement="L-02 O-01"
    )
    """Price of one GPU for an hour, a decimal number in quotes, for example "2.50". Unset: jobs show no cost."""
    currency: Annotated[str, StringConstraints(max_length=3, pattern=CURRENCY_PATTERN)] = api_field(
        default="USD", schema_default="USD", requirement="L-02"
    )
    """Currency of hourlyRate, three capital letters."""
    tflops: Annotated[int, Field(ge=1, le=100_000)] | None = api_field(default=None, unit="TFLOPS", requirement="O-01")
    """Dense 16-bit arithmetic of one GPU, as the data sheet has it: what the length of a training, and so its cost, is estimated
    from. Unset: neither is."""
    resource_name: Annotated[str, StringConstraints(max_length=253, pattern=RESOURCE_PATTERN)] = api_field(
        default=GPU_RESOURCE, schema_default=GPU_RESOURCE, requirement="L-02"
    )
    """Resource that pods ask for, once for each of resources.gpusPerReplica; for example nvidia.com/mig-3g.40gb."""
    node_selector: dict[LabelKey, LabelText] | None = api_field(default=None, max_length=16, requirement="L-02")
    """Labels of the nodes that have it, added to those of the job. A job that wants another value of the same label is refused."""
    tolerations: list[Toleration] | None = api_field(default=None, max_length=16, requirement="L-02")
    """Taints of these nodes, tolerated by the pods that train beside those of the job."""
    regions: list[Region] | None = api_field(default=None, max_length=32, requirement="L-02 L-05")
    """Values of the node label topology.kubernetes.io/region: pods run in these alone. Unset or empty: anywhere."""

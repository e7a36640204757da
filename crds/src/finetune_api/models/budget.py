"""Budget: the money and the checkpoints that the jobs of a namespace may use, and what has become of them."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from finetune_api.models.base import ApiModel, Tier, api_field
from finetune_api.models.gpu_type import CURRENCY_PATTERN
from finetune_api.models.status import Condition
from finetune_api.models.status_base import Short, StatusModel

AMOUNT_PATTERN = r"^[0-9]{1,9}(\.[0-9]{1,4})?$"
TIME_PATTERN = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$"
MAX_CREDITS = 256
MAX_SHARES = 1000
"""Jobs of a namespace that a Budget can keep account of."""

Amount = Annotated[str, StringConstraints(max_length=14, pattern=AMOUNT_PATTERN)]
"""Money: a decimal number of up to four places."""


class Credit(ApiModel):
    """Money that was given."""

    amount: Amount = api_field(requirement="O-10 OP-21")
    """How much, a decimal number in quotes of up to four places, for example "250.00"."""
    at: Annotated[str, StringConstraints(max_length=20, pattern=TIME_PATTERN)] = api_field(requirement="O-10")
    """When, in UTC, for example "2026-11-01T09:00:00Z": no two entries have the same."""
    note: Annotated[str, StringConstraints(max_length=256)] | None = api_field(default=None, requirement="O-10")
    """What for, or from whom."""


class BudgetSpec(ApiModel):
    """Money for the jobs of its namespace that have a price, and how many checkpoints all its jobs may write."""

    credits: list[Credit] = api_field(max_length=MAX_CREDITS, tier=Tier.GENERAL, requirement="O-10 AA-03")
    """What was given, oldest first. Entries are only ever added: none is changed or taken away."""
    currency: Annotated[str, StringConstraints(max_length=3, pattern=CURRENCY_PATTERN)] = api_field(
        default="USD", schema_default="USD", requirement="OP-21"
    )
    """Currency of all amounts, three capital letters; it stays as it is. Jobs whose GpuType is priced in another one do not start."""
    approval_above: Amount | None = api_field(default=None, requirement="O-07")
    """Jobs that may cost more than this wait for kubectl finetune approve; "0": every job with a price. Unset: none waits."""
    checkpoint_quota: int | None = api_field(default=None, ge=0, le=1_000_000, tier=Tier.GENERAL, requirement="O-14 X41")
    """How many checkpoints the namespace's jobs may write in all, those on CPU and without a price too. Each that is complete in the store
    counts once, also after it was removed. Jobs start while there are as many left as they are estimated to write, and are paused when none
    is. It may be changed at any time. Unset: they are counted and not limited."""


class BudgetShare(StatusModel):
    """What a job has of the Budget. Cost is counted from its first start under the Budget on."""

    name: Short
    """The job."""
    run: int
    """Newest run it was granted."""
    generation: int
    """metadata.generation of the job that the run was granted to."""
    before: Short = "0"
    """Sum of GPU seconds times hourly rate that the job had used before its first grant; not charged."""
    rate_seconds: Short = "0"
    """The same sum as last seen; it never falls. A 3600th of what it is above before is charged."""
    limit: Short | None = None
    """Cost (status.usage.cost) at which the job is paused; what it is above the present cost is reserved. Unset: nothing is."""
    checkpoints_before: int = 0
    """Checkpoints that the job had written before its first grant; not counted."""
    checkpoints: int = 0
    """Checkpoints it has written (status.checkpoints.saved) as last seen; it never falls."""
    checkpoint_limit: int | None = None
    """Number of them at which it is paused, if no more are free; what it is above checkpoints is reserved. Unset: nothing is."""


class BudgetStatus(StatusModel):
    """Status of a Budget."""

    observed_generation: int = 0
    """metadata.generation the status was computed from."""
    credited: Short = "0.0000"
    """Sum of spec.credits."""
    settled: Short = "0.0000"
    """What jobs have used, deleted ones among them."""
    reserved: Short = "0.0000"
    """What jobs that run, or are about to, may still use."""
    balance: Short = "0.0000"
    """credited less settled. Jobs start against what it is above reserved."""
    checkpoints: int = 0
    """Checkpoints that jobs have written since their first start under the Budget, deleted jobs among them."""
    checkpoints_reserved: int = 0
    """Checkpoints that jobs which run, or are about to, may still write."""
    jobs: int = 0
    """Jobs with a share."""
    shares: dict[Annotated[str, StringConstraints(max_length=64)], BudgetShare] = Field(default={}, max_length=MAX_SHARES)
    """By uid of the job; of a deleted job it goes into closedRateSeconds."""
    closed_rate_seconds: Short = "0"
    """Sum of GPU seconds times hourly rate that deleted jobs were charged for, exactly."""
    closed_checkpoints: int = 0
    """Checkpoints of deleted jobs."""
    conditions: Annotated[
        list[Condition], Field(max_length=24, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})
    ] = []
    """Conditions as in the Kubernetes API conventions; Ready, Reconciling and Stalled as in kstatus. Exhausted: jobs wait for credit."""

"""Jobs that choose their GPUs from the catalogue: which type a new run gets.

A run freezes all of its GpuType, the price too: later runs of the job that name the same type are made from what the last one was, whatever
has become of the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping

from finetune_api.catalogue import unknown_gpu_type
from finetune_api.constants import GPU_TYPE_KIND
from finetune_api.contract.run_config import ChosenGpuType
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.models.partial import validate_gpu_type
from finetune_api.models.status import UsageStatus
from finetune_api.quantities import number_of
from finetune_api.resolve import GPU_TYPE
from finetune_operator.plan.observed import Found
from finetune_operator.plan.unavailable import manifest_of, valid_spec

NOT_FOUND = "GpuTypeNotFound"
SHOWN = 8
"""Names that are said at most."""
_WHERE = f"spec.{GPU_TYPE}"


def usable_gpu_type(found: Found | None, name: str) -> ChosenGpuType:
    """The GpuType of a name, for a job whose last run had another one or none.

    Raises :class:`UnavailableError` when there is none for it, :class:`SpecError` when it is not valid.
    """
    manifest = manifest_of(
        found,
        name,
        NOT_FOUND,
        missing=str(unknown_gpu_type(name, found.others if found is not None else ())),
        unreadable=(
            f"{_WHERE}: {name} cannot be looked up, for this installation may not read {GPU_TYPE_KIND}s;"
            " its administrator sets rbac.clusterReads, or write resources.nodeSelector"
        ),
    )
    spec = valid_spec(manifest, validate_gpu_type, GPU_TYPE_KIND, _WHERE)
    return ChosenGpuType(name=name, spec=GpuTypeSpec.model_validate({key: value for key, value in spec.items() if value is not None}))


def fitting(needed: int, memories: Mapping[str, str]) -> str:
    """Which GpuTypes have so many bytes of memory, the smallest first, as a sentence; empty where there are no GpuTypes (N-05)."""
    if not memories:
        return ""
    sizes = sorted((number_of(memory), name) for name, memory in memories.items())
    names = [name for size, name in sizes if size >= needed]
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{GPU_TYPE_KIND}s with enough memory (resources.gpuType): {shown}." if names else f"No {GPU_TYPE_KIND} has so much memory."


def currency_refusal(chosen: ChosenGpuType | None, usage: UsageStatus) -> str:
    """Why a job may not go on with GPUs that are priced in another currency than what it has used; empty if it may."""
    if chosen is None or chosen.spec.hourly_rate is None or usage.rate_seconds in (None, "0") or chosen.spec.currency == usage.currency:
        return ""
    return (
        f"{_WHERE} is {chosen.name}, priced in {chosen.spec.currency}, and status.usage.cost is in {usage.currency}:"
        f" costs of two currencies cannot be added. Choose a {GPU_TYPE_KIND} priced in {usage.currency}, or create a new job."
    )

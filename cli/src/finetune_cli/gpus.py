"""The catalogue of GpuTypes, as people read it, with the GPUs there are of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from rich.table import Table

from finetune_api.constants import GPU_RESOURCE, GPU_TYPE_KIND, LABEL_REGION
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.pricing import hourly_cost
from finetune_api.quantities import number_of
from finetune_cli.nodes import allocatable, held, takes_pods
from finetune_cli.terminal import list_table

GIB: Final = 2**30
UNKNOWN: Final = "?"
Manifest = Mapping[str, Any]


class Supply(NamedTuple):
    """GPUs of the nodes of a type."""

    total: int
    free: int
    """Of nodes that take new pods: allocatable minus what pods ask for."""


def render_gpus(gpu_types: Iterable[Manifest], supplies: Mapping[str, Supply] | None) -> Table:
    """A row for each GpuType, by name; ``supplies`` None: nodes may not be looked at."""
    table = list_table()
    for column in ("NAME", "MEMORY", "CAPABILITY", "GPU HOUR", "TOTAL", "FREE"):
        table.add_column(column, no_wrap=True)
    table.add_column("REGIONS", overflow="fold")
    table.add_column("DESCRIPTION", overflow="fold")
    for each in sorted(gpu_types, key=lambda each: str(each["metadata"]["name"])):
        name, spec = each["metadata"]["name"], each["spec"]
        supply = supplies[name] if supplies is not None else None
        table.add_row(
            name,
            _gib(spec["memory"]),
            spec.get("computeCapability", UNKNOWN),
            f"{spec['hourlyRate']} {spec['currency']}" if "hourlyRate" in spec else UNKNOWN,
            UNKNOWN if supply is None else str(supply.total),
            UNKNOWN if supply is None else str(supply.free),
            ", ".join(spec.get("regions") or ("all",)),
            spec.get("description", ""),
        )
    return table


def supply_of(spec: Manifest, nodes: Iterable[Manifest], pods: Sequence[Manifest]) -> Supply:
    """GPUs of the nodes that a type's selector and regions leave, and how many of them no pod asks for; taints do not count."""
    resource = spec.get("resourceName", GPU_RESOURCE)
    taken = held(pods, resource)
    there = {node["metadata"]["name"]: (allocatable(node, resource), takes_pods(node)) for node in nodes if _has_type(node, spec)}
    free = sum(max(0, count - taken[name]) for name, (count, usable) in there.items() if usable)
    return Supply(sum(count for count, _ in there.values()), free)


def summarise_gpu_type(name: str, gpu_type: Manifest, spec: FineTuneJobSpec) -> str:
    """What the GPUs that a job chose have, and what an hour of all of them costs, as far as that is known."""
    known = GpuTypeSpec.model_validate(gpu_type)
    parts = [f"{_gib(known.memory)} each"]
    if known.compute_capability is not None:
        parts.append(f"compute capability {known.compute_capability}")
    if known.hourly_rate is None:
        parts.append("price not known")
    else:
        gpus = max(spec.replicas, 1) * spec.resources.gpus_per_replica
        cost = hourly_cost(known.hourly_rate, gpus)
        parts.append(f"{known.hourly_rate} {known.currency} per GPU hour, {cost} {known.currency} for an hour of all {gpus}")
    return f"{GPU_TYPE_KIND} {name}: {'; '.join(parts)}"


def _gib(memory: str) -> str:
    return f"{number_of(memory) / GIB:.1f} GiB"


def _has_type(node: Manifest, spec: Manifest) -> bool:
    labels, regions = node["metadata"].get("labels") or {}, spec.get("regions")
    selected = all(labels.get(key) == value for key, value in (spec.get("nodeSelector") or {}).items())
    return selected and (not regions or labels.get(LABEL_REGION) in regions)

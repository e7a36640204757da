"""What there is to say of the catalogues of BaseModels and GpuTypes, to the operator and on the command line alike."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from finetune_api.constants import BASE_MODEL_KIND, GPU_TYPE_KIND, LABEL_REGION
from finetune_api.models.gpu_type import GpuTypeSpec
from finetune_api.models.spec import FineTuneJobSpec, Precision
from finetune_api.problems import Problem
from finetune_api.resolve import GPU_TYPE

AMPERE: Final = (8, 0)
"""The first compute capability with bfloat16 and TF32."""


def ineligible(name: str, base_model: Mapping[str, Any]) -> Problem | None:
    """Why no job may begin to train a BaseModel, if so: it must be eligible and deployed (C-03)."""
    if not base_model.get("eligible", True):
        lacks = "the administrators have marked this {} as not eligible for fine-tuning"
    elif not base_model.get("deployed", True):
        lacks = "this {} is not deployed, so that nothing could serve what is trained"
    else:
        return None
    says = " ".join(str(base_model.get("description") or "").split())
    return Problem(
        "spec.model.uri",
        f"ref:{name}",
        f"ref:{name}: {lacks.format(BASE_MODEL_KIND)}; choose one that is, of kubectl get basemodels{f' ({says})' if says else ''}",
    )


def unknown_gpu_type(name: str, known: Collection[str]) -> Problem:
    """There is no GpuType of this name among those that are ``known``."""
    nearest = difflib.get_close_matches(name, sorted(known), n=3, cutoff=0)
    fix = f"the nearest are {', '.join(nearest)}; kubectl finetune gpus lists all" if nearest else "the catalogue is empty; leave it out"
    return Problem(f"spec.{GPU_TYPE}", name, f"{name}: there is no {GPU_TYPE_KIND} of this name; {fix}")


def gpu_type_problems(name: str, gpu_type: GpuTypeSpec, spec: FineTuneJobSpec) -> list[Problem]:
    """What a resolved job wants that GPUs of the type it chose cannot give (L-02, AC-23)."""
    own = spec.resources.node_selector or {}
    pinned = gpu_type.node_selector or {}
    where = "spec.resources.nodeSelector"
    problems = [
        Problem(
            where,
            own,
            f"{key} is {own[key]}, and nodes of {GPU_TYPE_KIND} {name} have {pinned[key]}; leave the label out, or choose another gpuType",
        )
        for key in sorted(own.keys() & pinned.keys())
        if own[key] != pinned[key]
    ]
    region = own.get(LABEL_REGION)
    if region is not None and gpu_type.regions and region not in gpu_type.regions:
        there = ", ".join(gpu_type.regions)
        problems.append(Problem(where, own, f"{LABEL_REGION} is {region}, and {GPU_TYPE_KIND} {name} is in {there}; choose one of these"))
    if spec.method is not None and gpu_type.compute_capability is not None and _capability(gpu_type.compute_capability) < AMPERE:
        problems += [
            Problem(
                f"spec.{path}",
                value,
                f"{GPU_TYPE_KIND} {name} has compute capability {gpu_type.compute_capability}, older than Ampere (8.0), without bfloat16 "
                "and TF32; use precision.fp16, or choose another gpuType",
            )
            for path, value in _of_ampere(spec.precision)
        ]
    return problems


def _of_ampere(precision: Precision) -> Iterator[tuple[str, object]]:
    """Number formats asked for that GPUs before Ampere do not have."""
    if precision.bf16:
        yield "precision.bf16", True
    if precision.tf32:
        yield "precision.tf32", True
    if precision.dtype == "bfloat16":
        yield "precision.dtype", "bfloat16"


def _capability(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))

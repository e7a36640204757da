"""From what the user wrote to what is run: presets, Datasets, BaseModels, GpuTypes and defaults merged in, each value with its source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from finetune_api.defaults import ADAPTER, BACKEND, BASE, METHOD, SCHEMA
from finetune_api.models.base import ApiModel, ResumeClass, is_list, nested_model
from finetune_api.models.methods import METHOD_BLOCKS
from finetune_api.models.spec import FineTuneJobSpec

Source = Literal["job", "preset", "dataset", "model", "gpuType", "backend", "adapter", "method", "default"]


ADAPTER_SHAPE = tuple(f"adapter.{name}" for name in ("rank", "alpha", "dropout", "targetModules", "allowCustomModules", "peftConfig"))
"""Fields that say what a new adapter looks like."""
ATTACHED = "adapter.attach.uri"
LORA_FIELDS = (*ADAPTER_SHAPE, ATTACHED)
"""Fields that mean nothing with ``adapter.type: full``."""


GLOBAL_BATCH = ("training.batchSize", "training.gradAccumSteps")
"""Fields that are identity only as a product, together with the number of ranks."""


class Resolution(NamedTuple):
    """A resolved spec and where each leaf came from."""

    spec: FineTuneJobSpec
    sources: Mapping[str, Source]
    """Field path (``training.learningRate``) -> who set it."""
    reasons: Mapping[str, str] = MappingProxyType({})
    """Field path -> why this value, where a preset reckoned it."""
    notes: tuple[str, ...] = ()
    """What such a preset did not know, a sentence each."""

    def set_by(self, source: Source) -> list[str]:
        """Paths of the fields that one of them decided."""
        return [path for path, each in self.sources.items() if each == source]


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Leaves of a spec by dotted path. Lists, and maps below a model field that is itself a map, are leaves; a null is not written."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if value is None:
            continue
        if isinstance(value, Mapping) and path not in _MAP_FIELDS and value:
            leaves |= flatten(value, f"{path}.")
        else:
            leaves[path] = value
    return leaves


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten`."""
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        *parents, last = path.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        if isinstance(value, Mapping) and not value:
            node.setdefault(last, {})
        else:
            node[last] = value
    return tree


def resolve(
    job: Mapping[str, Any],
    preset: Mapping[str, Any] | None = None,
    own: Mapping[str, Any] | None = None,
    base_model: Mapping[str, Any] | None = None,
    dataset: Mapping[str, Any] | None = None,
    gpu_type: Mapping[str, Any] | None = None,
) -> Resolution:
    """Complete a job's spec.

    ``job`` and ``preset`` are specs as users write them (camelCase trees, already validated), ``own`` what the TrainingMethod they choose
    (:func:`chosen_method`) gives defaults for, ``base_model``, ``dataset`` and ``gpu_type`` the specs of the BaseModel, the Dataset and
    the GpuType they choose (:func:`chosen_model`, :func:`chosen_dataset`, :func:`chosen_gpu_type`). Raises
    :class:`pydantic.ValidationError` when the result is no valid spec, for example when preset and job contradict each other.
    """
    job_leaves = flatten(job)
    preset_leaves = _of_same_gpus(_of_same_method(flatten(preset or {}), job_leaves), job_leaves)
    of_gpu_type: dict[str, Any] = {}
    if chosen_gpu_type(job, preset) is not None:
        assert gpu_type is not None, "whoever resolves a job has looked for the GpuType it chooses"
        of_gpu_type = {GPU_MEMORY: gpu_type["memory"]}
    of_model: dict[str, Any] = {}
    if chosen_model(job, preset) is not None:
        assert base_model is not None, "whoever resolves a job has looked for the BaseModel it chooses"
        job_leaves, preset_leaves = without(job_leaves, (MODEL_URI,)), without(preset_leaves, (MODEL_URI,))
        of_model = _without_contradictions(model_leaves(base_model), {**preset_leaves, **job_leaves})
    of_dataset: dict[str, Any] = {}
    if chosen_dataset(job, preset) is not None:
        assert dataset is not None, "whoever resolves a job has looked for the Dataset it chooses"
        job_leaves, preset_leaves = without(job_leaves, (DATASET_URI,)), without(preset_leaves, DATASET_FIELDS)
        of_dataset = dataset_leaves(dataset)
        if job_leaves.get("dataset.evalRatio"):
            of_dataset.pop("dataset.evalUri", None)  # a share of the rows is wanted instead
    is_custom = _METHOD_NAME in {**preset_leaves, **job_leaves}
    method = None if is_custom else {**preset_leaves, **job_leaves}.get("method", BASE["method"])
    of_method = flatten(own or {}) if is_custom else METHOD[str(method)]
    base = {path: value for path, value in BASE.items() if path != "method"} if is_custom else BASE
    # A preset for another method or adapter still serves with what is common to all.
    blocks = {str(method), *(path.split(".")[0] for path in job_leaves)}
    preset_leaves = _without_other_blocks(preset_leaves, blocks)
    if "dataset.evalUri" in job_leaves or of_dataset.get("dataset.evalUri"):
        preset_leaves = without(preset_leaves, ("dataset.evalRatio",))  # rows of their own need no split
    adapter_type = {**BASE, **of_method, **preset_leaves, **job_leaves}["adapter.type"]
    if adapter_type == "full":
        preset_leaves = without(preset_leaves, (*ADAPTER_SHAPE, "adapter.attach"))
    elif ATTACHED in job_leaves:
        preset_leaves = without(preset_leaves, ADAPTER_SHAPE)
    if adapter_type == "full" or ATTACHED in {**preset_leaves, **job_leaves}:
        of_model = without(of_model, ADAPTER_SHAPE)  # as a preset's
    backend = {**BASE, **of_method, **preset_leaves, **job_leaves}["training.backend"]
    layers: Sequence[tuple[Source, Mapping[str, Any]]] = (
        ("default", SCHEMA),
        ("default", _without_other_blocks(base, blocks)),
        ("adapter", ADAPTER.get(adapter_type, {})),
        ("method", of_method),
        ("backend", BACKEND.get(backend, {})),
        ("model", of_model),
        ("dataset", of_dataset),
        ("gpuType", of_gpu_type),
        ("preset", preset_leaves),
        ("job", job_leaves),
    )
    leaves: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for source, layer in layers:
        for path, value in layer.items():
            leaves[path] = value
            sources[path] = source
    return Resolution(FineTuneJobSpec.model_validate(unflatten(leaves)), sources)


def without(leaves: Mapping[str, Any], dropped: Sequence[str]) -> dict[str, Any]:
    """Leave out fields and all below them."""
    below = tuple(f"{path}." for path in dropped)
    return {path: value for path, value in leaves.items() if path not in dropped and not path.startswith(below)}


def model_leaves(base_model: Mapping[str, Any]) -> dict[str, Any]:
    """What a BaseModel sets in a job that chooses it, by path."""
    own = {"uri": base_model["uri"], "type": base_model.get("type"), "trustRemoteCode": base_model.get("trustRemoteCode") or None}
    return flatten({**(base_model.get("defaults") or {}), "model": own})


def _without_contradictions(of_model: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """What a model prefers, but where job or preset go another way: number formats count as a whole, one template replaces the other."""
    dropped = ["precision"] if any(path.startswith("precision.") for path in others) else []
    if "dataset.promptTemplate" in others:
        dropped.append("dataset.chatTemplate")
    return without(of_model, dropped)


def dataset_leaves(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What a Dataset sets in a job that chooses it, by path."""
    own = {name: dataset.get(name) for name in ("uri", *OF_DATASET, "onError")}
    return flatten({"dataset": own, "secrets": dataset.get("secrets")})


OF_DATASET = ("split", "config", "format", "promptColumn", "outputColumn", "secretRef", "region", "evalUri")
"""Fields of a job's block dataset that a Dataset it names says for it."""
DATASET_URI = "dataset.uri"
DATASET_FIELDS = (DATASET_URI, *(f"dataset.{name}" for name in OF_DATASET))
MODEL_URI = "model.uri"
_REFERENCE = "ref:"


def chosen_model(job: Mapping[str, Any], preset: Mapping[str, Any] | None = None) -> str | None:
    """Name of the BaseModel that a job, or its preset, chooses; None: an address."""
    return _referenced(MODEL_URI, job, preset)


def chosen_dataset(job: Mapping[str, Any], preset: Mapping[str, Any] | None = None) -> str | None:
    """Name of the Dataset that a job, or its preset, chooses; None: an address."""
    return _referenced(DATASET_URI, job, preset)


def _referenced(path: str, job: Mapping[str, Any], preset: Mapping[str, Any] | None) -> str | None:
    uri = str({**flatten(preset or {}), **flatten(job)}.get(path, ""))
    return uri.removeprefix(_REFERENCE) if uri.startswith(_REFERENCE) else None


def chosen_method(job: Mapping[str, Any], preset: Mapping[str, Any] | None = None) -> str | None:
    """Name of the TrainingMethod that a job, or its preset, chooses; None: a built-in method."""
    job_leaves = flatten(job)
    name = {**_of_same_method(flatten(preset or {}), job_leaves), **job_leaves}.get(_METHOD_NAME)
    return None if name is None else str(name)


def chosen_gpu_type(job: Mapping[str, Any], preset: Mapping[str, Any] | None = None) -> str | None:
    """Name of the GpuType that a job, or its preset, chooses; None: any GPU."""
    job_leaves = flatten(job)
    name = {**_of_same_gpus(flatten(preset or {}), job_leaves), **job_leaves}.get(GPU_TYPE)
    return None if name is None else str(name)


GPU_TYPE, GPU_MEMORY = "resources.gpuType", "resources.gpuMemory"
_METHOD_NAME = "methodRef.name"


def _of_same_gpus(preset: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """The preset without what it says of GPUs that the job does not take: of any type on CPU, the memory of another type."""
    if job.get("resources.device") == "cpu":
        return without(preset, (GPU_TYPE,))
    return without(preset, (GPU_MEMORY,)) if GPU_TYPE in job else dict(preset)


def _of_same_method(preset: Mapping[str, Any], job: Mapping[str, Any]) -> dict[str, Any]:
    """The preset without what it says of another method than the job chooses."""
    other = job.get(_METHOD_NAME) != preset.get(_METHOD_NAME) if _METHOD_NAME in job else "method" in job
    dropped = ("methodRef.",) if other else ()
    return {
        path: value for path, value in preset.items() if not path.startswith(dropped) and not (path == "method" and _METHOD_NAME in job)
    }


def _without_other_blocks(leaves: Mapping[str, Any], blocks: Collection[str]) -> dict[str, Any]:
    """Leave out the blocks of methods that are none of ``blocks``."""
    others = set(METHOD_BLOCKS) - set(blocks)
    return {path: value for path, value in leaves.items() if path.split(".")[0] not in others}


def resume_classes(model: type[ApiModel] = FineTuneJobSpec, prefix: str = "") -> dict[str, ResumeClass]:
    """Resume class of every leaf field by path."""
    classes: dict[str, ResumeClass] = {}
    for field_name, info in model.model_fields.items():
        path = f"{prefix}{info.alias or field_name}"
        nested = nested_model(info.annotation)
        if nested is not None and not is_list(info.annotation):
            classes |= resume_classes(nested, f"{path}.")
        else:
            extra = info.json_schema_extra
            assert isinstance(extra, dict), f"{path} was not declared with api_field"
            classes[path] = ResumeClass(str(extra["x-resume"]))
    return classes


def identity(spec: FineTuneJobSpec) -> dict[str, Any]:
    """The leaves that make a training what it is; an edit of any of them is refused once a run exists.

    batchSize, gradAccumSteps and the number of ranks count only as their product: a resize that keeps the global batch is allowed.
    """
    leaves = flatten(spec.model_dump(by_alias=True, mode="json", exclude_none=True))
    return {path: value for path, value in leaves.items() if path in _identity_paths()}


@cache
def _identity_paths() -> frozenset[str]:
    classes = resume_classes()
    return frozenset(path for path, resume in classes.items() if resume is ResumeClass.IDENTITY) - set(GLOBAL_BATCH)


def identity_digest(spec: FineTuneJobSpec) -> str:
    """Digest of :func:`identity`."""
    return digest(identity(spec))


def digest(document: object) -> str:
    """A short, stable digest of a JSON document."""
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def processes_per_replica(spec: FineTuneJobSpec) -> int:
    """Ranks per pod: as written, else one per GPU, else 1."""
    if spec.resources.processes_per_replica is not None:
        return spec.resources.processes_per_replica
    return spec.resources.gpus_per_replica if spec.resources.device == "gpu" else 1


_MAP_FIELDS = frozenset(
    {
        "resources.nodeSelector",
        "resources.podTemplate.labels",
        "resources.podTemplate.annotations",
        "training.extraArgs",
        "methodRef.parameters",
    }
)

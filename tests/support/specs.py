"""Strategies for specs: what a user might write, mostly in range, with the pairs that rules are about close together."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from finetune_api.describe import describe_meaning
from finetune_api.models.partial import BaseModelInput, DatasetInput, GpuTypeInput, JobInput, PresetInput
from finetune_api.schema import JSON, structural
from tests.support.manifests import REQUIRED

_ADDRESSES = (
    "hf://org/name",
    "hf://org/name@main",
    "s3://bucket/key",
    "s3://bucket",
    "gs://bucket/a/b",
    "pvc://claim/path",
    "pvc://claim/../other",
    "https://host/file",
    "https://host",
    "configmap://name/key",
    "configmap://name",
    "pvc://models/x.gguf",
)
GPU_TYPE = {"memory": "80Gi"}
"""What the GpuTypes that specs name are resolved with."""
REFERENCES = ("ref:tiny", "ref:qwen2.5-3b-instruct", "ref:No", "ref:a/../b")
"""Names of BaseModels and Datasets, good and bad."""
_MODES = ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution")
_NODE_TERMS: tuple[Any, ...] = (
    [{"matchExpressions": [{"key": "pool", "operator": "In", "values": ["gpu"]}]}],
    [{"matchExpressions": [{"key": "pool", "operator": "Exists"}, {"key": "memory", "operator": "Gt", "values": ["40"]}]}],
    [{"matchExpressions": [{"key": "pool", "operator": "NotIn"}]}],
    [{"matchExpressions": [{"key": "pool", "operator": "Exists", "values": ["gpu"]}]}],
    [{"matchExpressions": [{"key": "memory", "operator": "Lt", "values": ["40", "80"]}]}],
)
_POD_TERMS: tuple[Any, ...] = (
    [{"topologyKey": "zone", "labelSelector": {}}],
    [{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "store"}}}],
    [{"topologyKey": "zone", "labelSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]}}],
    [{"topologyKey": "zone", "labelSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist", "values": []}]}}],
)
SCHEDULING: dict[str, tuple[Any, ...]] = {
    f"resources.affinity.nodeAffinity.{_MODES[0]}.nodeSelectorTerms": _NODE_TERMS,
    f"resources.affinity.nodeAffinity.{_MODES[1]}": tuple([{"weight": 1, "preference": term} for term in terms] for terms in _NODE_TERMS),
    **{f"resources.affinity.{kind}.{_MODES[0]}": _POD_TERMS for kind in ("podAffinity", "podAntiAffinity")},
    **{
        f"resources.affinity.{kind}.{_MODES[1]}": tuple(
            [{"weight": 100, "podAffinityTerm": term} for term in terms] for terms in _POD_TERMS
        )
        for kind in ("podAffinity", "podAntiAffinity")
    },
    "resources.resourceClaims": (
        [],
        [{"name": "gpu", "resourceClaimTemplateName": "two-gpus", "suppliesGpus": True}],
        [{"name": "gpu"}],
        [{"name": "gpu", "resourceClaimName": "a", "resourceClaimTemplateName": "b"}],
        [{"name": "nic", "resourceClaimName": "a"}, {"name": "nic", "resourceClaimName": "b"}],
    ),
    "resources.podTemplate.labels": ({}, {"team": "ml"}, {"finetune.dev/job": "other"}, {"kueue.x-k8s.io/queue-name": "other"}),
    "resources.podTemplate.annotations": ({"sidecar.istio.io/inject": "false"}, {"finetune.dev/run": "9"}),
    "resources.podTemplate.env": (
        [],
        [{"name": "NCCL_DEBUG", "value": "INFO"}],
        [{"name": "RANK", "value": "0"}],
        [{"name": "FINETUNE_X", "value": ""}],
    ),
}
_WRITTEN_BY_PEOPLE: dict[str, tuple[Any, ...]] = {
    "model.uri": tuple(address for address in _ADDRESSES if not address.startswith("configmap")),
    "model.tokenizer.uri": ("hf://org/name", "s3://bucket", "pvc://claim/.."),
    "adapter.attach.uri": ("hf://org/name", "s3://bucket", "pvc://claim/adapter"),
    "dataset.uri": _ADDRESSES,
    "dataset.evalUri": _ADDRESSES,
    "dataset.additional": (
        [],
        [{"uri": "hf://org/more", "weight": 0.5}],
        [{"uri": "hf://org/more"}, {"uri": "pvc://claim/../other"}],
        [{"uri": "s3://bucket/key"}],
        [{"uri": "s3://bucket/key", "secretRef": {"name": "s3"}, "region": "eu"}],
        [{"uri": "hf://org/more", "format": "alpaca", "promptColumn": "question"}],
    ),
    "dataset.promptTemplate": ("{prompt}", "{system_prompt} {prompt}", "{question}", "{{}} {prompt}"),
    "dataset.chatTemplate": ("{{ messages }}",),
    "adapter.peftConfig": ("configmap://name/key", "configmap://name", "s3://bucket/key"),
    "dpo.referenceModel": ("hf://org/name", "s3://bucket"),
    "kto.referenceModel": ("hf://org/name", "pvc://claim/.."),
    "grpo.referenceModel": ("hf://org/name", "s3://bucket"),
    "grpo.rewardModel": ("hf://org/name", "s3://bucket"),
    "grpo.rewardFunctions": (
        [{"type": "exactMatch"}],
        [{"type": "regex"}],
        [{"type": "regex", "pattern": "a+"}, {"type": "length"}],
        [{"type": "length", "maxTokens": 10, "weight": 0.5}],
        [{"type": "jsonSchema"}, {"type": "python"}],
        [{"type": "jsonSchema", "jsonSchema": "{}"}],
        [{"type": "python", "source": "configmap://name/key"}],
        [{"type": "python", "source": "configmap://name"}, {"type": "regex", "pattern": "a", "source": "pvc://claim/../other"}],
    ),
    "output.uri": ("s3://bucket", "s3://bucket/prefix"),
    "output.export.gguf.quant": (["F16"], ["Q8_0", "Q4_0"], ["BF16", "BF16"]),
    "output.push.repoId": ("org/name",),
    "output.modelCard.language": (["en"],),
    "output.modelCard.tags": (["one", "two"],),
    "checkpoint.resumeFrom": ("latest", "none", "checkpoint-500", "s3://bucket/key"),
    "adapter.targetModules": (["q_proj"], ["q_proj", "v_proj"], ["all-linear"], ["basic", "q_proj"], ["c_attn"], ["full", "enhanced"]),
    "logging.trackers": (
        [],
        [{"type": "tensorboard"}],
        [{"type": "wandb"}],
        [{"type": "wandb", "secretRef": {"name": "wandb"}}],
        [{"type": "mlflow"}, {"type": "tensorboard"}],
        [{"type": "mlflow", "uri": "http://mlflow"}],
    ),
    "resources.tolerations": (
        [],
        [{"operator": "Exists"}],
        [{"key": "gpu", "operator": "Exists", "value": "yes"}],
        [{"key": "gpu", "value": "yes", "tolerationSeconds": 5}],
        [{"key": "gpu", "effect": "NoExecute", "tolerationSeconds": 5}],
        [{"effect": "NoSchedule"}],
        [{"key": "", "operator": "Equal"}],
    ),
    "resources.nodeSelector": ({}, {"pool": "gpu"}),
    "training.extraArgs": ({}, {"adam_beta2": "0.95"}, {"save_steps": "5"}, {"adam_beta3": "0.9"}),
    **SCHEDULING,
    "training.maxSeqLength": (0, 64, 128, 512, 8192, 8200, 16384),
    "training.maxSteps": (-1, 0, 1, 100),
    "dataset.promptMaxLength": (256, 512, 2048),
    "dataset.contentMaxLength": (256, 512, 2048),
    "checkpoint.keepLast": (1, 2, 100, 101, 500),
    "checkpoint.keepLastRemote": (1, 2, 100, 500),
    "resources.gpusPerReplica": (1, 2, 4),
    "resources.processesPerReplica": (1, 2, 4),
    "replicas": (0, 1, 2),
}
_OF_GPU_TYPES: dict[str, tuple[Any, ...]] = {
    "memory": ("80Gi", "81559Mi", "80 GB", "80gb"),
    "computeCapability": ("9.0", "12.1", "9", "9.0a"),
    "hourlyRate": ("2.50", "0", "999999.999999", "2,50", "-1", "1e3"),
    "currency": ("USD", "EUR", "usd", "Euro"),
    "resourceName": ("nvidia.com/gpu", "nvidia.com/mig-3g.40gb", "gpu", "Nvidia.com/gpu"),
    "nodeSelector": ({}, {"nvidia.com/gpu.product": "NVIDIA-L4"}, {"pool": "no value"}),
    "regions": ([], ["eu-west-1", "eu-north-1"], [""], ["eu west"]),
}
OF_METHOD_REF = ("methodRef.parameters", "methodRef.outputClaim")
"""Fields that mean nothing without ``methodRef.name``."""
_TEXTS = {
    "resources.cpu": "500m",
    "resources.gpuMemory": "80Gi",
    "resources.memory": "16Gi",
    "resources.sharedMemory": "1Gi",
    "resources.ephemeralStorage": "50Gi",
    "cache.sizeLimit": "10Gi",
    "output.export.cpu": "500m",
    "output.export.memory": "16Gi",
}


_WITH_ADAPTER = ("adapter.attach.region", "adapter.attach.secretRef.name")


def job_leaves(max_fields: int = 8, *, references: bool = False) -> st.SearchStrategy[dict[str, Any]]:
    """Leaves of a FineTuneJob's spec: model and dataset, and up to ``max_fields`` others; each in range by itself.

    ``references``: some name a BaseModel or Dataset, which nothing can be resolved without.
    """
    choices = candidates(structural(JobInput, describe_meaning))
    if references:
        choices["model.uri"] += REFERENCES
        choices["dataset.uri"] += REFERENCES
    for path in (
        "presetRef.kind",
        "resources.topology.ranks",
        *_WITH_ADAPTER,
        *OF_METHOD_REF,
    ):  # mean nothing without a name, key or address
        del choices[path]
    required = st.fixed_dictionaries({path: st.sampled_from(choices.pop(path)) for path in REQUIRED})
    return st.builds(lambda own, others: {**others, **own}, required, _some(choices, max_fields))


def preset_leaves(max_fields: int = 8) -> st.SearchStrategy[dict[str, Any]]:
    """Leaves of a preset's spec."""
    choices = candidates(structural(PresetInput, describe_meaning))
    for path in ("resources.topology.ranks", *_WITH_ADAPTER, *OF_METHOD_REF):  # mean nothing without a name, key or address
        del choices[path]
    return _some(choices, max_fields)


def base_model_leaves(max_fields: int = 8) -> st.SearchStrategy[dict[str, Any]]:
    """Leaves of a BaseModel's spec: address and type, and up to ``max_fields`` others; each in range by itself."""
    choices = candidates(structural(BaseModelInput, describe_meaning))
    choices |= {path: _WRITTEN_BY_PEOPLE.get(path.removeprefix("defaults."), values) for path, values in choices.items()}
    choices["uri"] = (*_WRITTEN_BY_PEOPLE["model.uri"], f"hf://org/name@{'0' * 40}")
    required = st.fixed_dictionaries({path: st.sampled_from(choices.pop(path)) for path in ("uri", "type")})
    return st.builds(lambda own, others: {**others, **own}, required, _some(choices, max_fields))


def gpu_type_leaves(max_fields: int = 8) -> st.SearchStrategy[dict[str, Any]]:
    """Leaves of a GpuType's spec: its memory, and up to ``max_fields`` other fields; each in range by itself."""
    choices = candidates(structural(GpuTypeInput, describe_meaning)) | _OF_GPU_TYPES
    choices["tolerations"] = _WRITTEN_BY_PEOPLE["resources.tolerations"]
    required = st.fixed_dictionaries({"memory": st.sampled_from(choices.pop("memory"))})
    return st.builds(lambda own, others: {**others, **own}, required, _some(choices, max_fields))


def dataset_leaves(max_fields: int = 8) -> st.SearchStrategy[dict[str, Any]]:
    """Leaves of a Dataset's spec: its address, and up to ``max_fields`` other fields; each in range by itself."""
    choices = candidates(structural(DatasetInput, describe_meaning))
    choices |= {path: _WRITTEN_BY_PEOPLE.get(f"dataset.{path}", values) for path, values in choices.items()}
    choices["tokenizer.uri"] = _WRITTEN_BY_PEOPLE["model.uri"]
    required = st.fixed_dictionaries({"uri": st.sampled_from(choices.pop("uri"))})
    return st.builds(lambda own, others: {**others, **own}, required, _some(choices, max_fields))


def candidates(schema: JSON, prefix: str = "") -> dict[str, tuple[Any, ...]]:
    """Some values in range for every leaf of a structural schema."""
    values: dict[str, tuple[Any, ...]] = {}
    for name, node in schema["properties"].items():
        path = f"{prefix}{name}"
        if "properties" in node:
            values |= candidates(node, f"{path}.")
        else:
            values[path] = _WRITTEN_BY_PEOPLE.get(path) or _in_range(path, node)
    return values


def _in_range(path: str, node: JSON) -> tuple[Any, ...]:
    if "enum" in node:
        return tuple(node["enum"])
    match node["type"]:
        case "boolean":
            return (True, False)
        case "integer" | "number":
            return (node["minimum"], node["maximum"])
        case _:
            return (_TEXTS.get(path, "name"),)


def _some(choices: dict[str, tuple[Any, ...]], max_fields: int) -> st.SearchStrategy[dict[str, Any]]:
    fields = st.lists(st.sampled_from(sorted(choices)), max_size=max_fields, unique=True)
    return fields.flatmap(lambda paths: st.fixed_dictionaries({path: st.sampled_from(choices[path]) for path in paths}))

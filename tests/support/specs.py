"""Strategies for specs: what a user might write, mostly in range, with the pairs that rules are about close together."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from finetune_api.describe import describe_meaning
from finetune_api.models.partial import JobInput, PresetInput
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
_WRITTEN_BY_PEOPLE: dict[str, tuple[Any, ...]] = {
    "model.uri": tuple(address for address in _ADDRESSES if not address.startswith("configmap")),
    "model.tokenizer.uri": ("hf://org/name", "s3://bucket", "pvc://claim/.."),
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
    "output.uri": ("s3://bucket", "s3://bucket/prefix"),
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
_TEXTS = {
    "resources.cpu": "500m",
    "resources.gpuMemory": "80Gi",
    "resources.memory": "16Gi",
    "resources.sharedMemory": "1Gi",
    "cache.sizeLimit": "10Gi",
}


def job_leaves(max_fields: int = 8) -> st.SearchStrategy[dict[str, Any]]:
    """Leaves of a FineTuneJob's spec: model and dataset, and up to ``max_fields`` others; each in range by itself."""
    choices = candidates(structural(JobInput, describe_meaning))
    del choices["presetRef.kind"]  # means nothing without a name
    required = st.fixed_dictionaries({path: st.sampled_from(choices.pop(path)) for path in REQUIRED})
    return st.builds(lambda own, others: {**others, **own}, required, _some(choices, max_fields))


def preset_leaves(max_fields: int = 8) -> st.SearchStrategy[dict[str, Any]]:
    """Leaves of a preset's spec."""
    return _some(candidates(structural(PresetInput, describe_meaning)), max_fields)


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

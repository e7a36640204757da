"""The CustomResourceDefinitions, as documents."""

from __future__ import annotations

from typing import Any

from finetune_api.constants import (
    BASE_MODEL_KIND,
    BASE_MODEL_PLURAL,
    BUDGET_KIND,
    BUDGET_PLURAL,
    CLUSTER_PRESET_KIND,
    CLUSTER_PRESET_PLURAL,
    DATASET_KIND,
    DATASET_PLURAL,
    GPU_TYPE_KIND,
    GPU_TYPE_PLURAL,
    GROUP,
    KIND,
    METHOD_KIND,
    METHOD_PLURAL,
    PLURAL,
    PRESET_KIND,
    PRESET_PLURAL,
    VERSION,
)
from finetune_api.describe import describe, describe_meaning, describe_range
from finetune_api.models.budget import BudgetStatus
from finetune_api.models.dataset import DatasetStatus
from finetune_api.models.partial import BaseModelInput, BudgetInput, DatasetInput, GpuTypeInput, JobInput, MethodInput, PresetInput
from finetune_api.models.status import FineTuneJobStatus, Phase
from finetune_api.rules import CANCELLED_IS_FINAL, JOB_NAME, SchemaRule
from finetune_api.rules.base_model import DEFAULT_RULES, ENTRY_RULES
from finetune_api.rules.budget import APPEND_ONLY, BUDGET_NAMED, SAME_CURRENCY, UNCHANGED
from finetune_api.rules.dataset import DATASET_NAME, DATASET_RULES
from finetune_api.rules.gpu_type import GPU_TYPE_RULES
from finetune_api.rules.training_method import NAME_RULES, PARAMETER_RULES, UNIQUE_NAMES, EntryRule
from finetune_api.schema import JSON, attach_rules, structural

CATEGORY = "ml"


def column(name: str, kind: str, path: str, *, wide: bool = False) -> JSON:
    """A column of ``kubectl get``; ``wide`` ones appear with ``-o wide`` only."""
    printed: JSON = {"name": name, "type": kind, "jsonPath": path}
    return {**printed, "priority": 1} if wide else printed


JOB_COLUMNS = [
    column("Phase", "string", ".status.phase"),
    column("Method", "string", ".status.method"),
    column("Progress%", "integer", ".status.progress.percent"),
    column("Step", "integer", ".status.progress.step"),
    column("Loss", "number", ".status.progress.loss"),
    column("ETA", "string", ".status.progress.eta"),
    column("Attempts", "integer", ".status.attemptCount"),
    column("GPUs", "integer", ".status.gpus"),
    column("Age", "date", ".metadata.creationTimestamp"),
    column("Reason", "string", ".status.reason", wide=True),
    column("Model", "string", ".spec.model.uri", wide=True),
    column("Dataset", "string", ".spec.dataset.uri", wide=True),
    column("Last-Replicas", "integer", ".status.lastReplicas", wide=True),
    column("LR", "number", ".status.progress.learningRate", wide=True),
    column("Cost", "string", ".status.usage.cost", wide=True),
]
PRESET_COLUMNS = [
    column("Adapter", "string", ".spec.adapter.type"),
    column("Batch", "integer", ".spec.training.batchSize"),
    column("LR", "number", ".spec.training.learningRate"),
    column("Epochs", "integer", ".spec.training.epochs"),
    column("Max-Steps", "integer", ".spec.training.maxSteps"),
    column("Age", "date", ".metadata.creationTimestamp"),
]
SELECTABLE = [{"jsonPath": ".status.phase"}, {"jsonPath": ".spec.displayName"}]
"""Of jobs and Datasets: kubectl get ftj --field-selector spec.displayName=X."""
METHOD_COLUMNS = [
    column("Name-For-People", "string", ".spec.displayName"),
    column("Image", "string", ".spec.image"),
    column("Resumable", "boolean", ".spec.resumable"),
    column("Age", "date", ".metadata.creationTimestamp"),
    column("Description", "string", ".spec.description", wide=True),
]
BASE_MODEL_COLUMNS = [
    column("URI", "string", ".spec.uri"),
    column("Type", "string", ".spec.type"),
    column("Parameters", "integer", ".spec.parameters"),
    column("Eligible", "boolean", ".spec.eligible"),
    column("Deployed", "boolean", ".spec.deployed"),
    column("Age", "date", ".metadata.creationTimestamp"),
    column("Context", "integer", ".spec.contextLength", wide=True),
    column("Description", "string", ".spec.description", wide=True),
]
GPU_TYPE_COLUMNS = [
    column("Memory", "string", ".spec.memory"),
    column("Capability", "string", ".spec.computeCapability"),
    column("Hourly-Rate", "string", ".spec.hourlyRate"),
    column("Currency", "string", ".spec.currency"),
    column("Age", "date", ".metadata.creationTimestamp"),
    column("Resource", "string", ".spec.resourceName", wide=True),
    column("Regions", "string", ".spec.regions", wide=True),
    column("Description", "string", ".spec.description", wide=True),
]
DATASET_COLUMNS = [
    column("Ready", "string", '.status.conditions[?(@.type=="Ready")].status'),
    column("Phase", "string", ".status.phase"),
    column("Examples", "integer", ".status.examples"),
    column("Format", "string", ".status.format"),
    column("Age", "date", ".metadata.creationTimestamp"),
    column("Origin", "string", ".spec.origin", wide=True),
    column("URI", "string", ".spec.uri", wide=True),
    column("Validated", "date", ".status.lastValidated", wide=True),
    column("Description", "string", ".spec.description", wide=True),
]

BUDGET_COLUMNS = [
    column("Balance", "string", ".status.balance"),
    column("Reserved", "string", ".status.reserved"),
    column("Settled", "string", ".status.settled"),
    column("Currency", "string", ".spec.currency"),
    column("Jobs", "integer", ".status.jobs"),
    column("Age", "date", ".metadata.creationTimestamp"),
    column("Approval-Above", "string", ".spec.approvalAbove", wide=True),
    column("Checkpoint-Quota", "integer", ".spec.checkpointQuota", wide=True),
    column("Checkpoints", "integer", ".status.checkpoints", wide=True),
]


_NEVER = {"lastTransitionTime": "1970-01-01T00:00:00Z", "reason": "Unseen"}


def nobody_looked(thing: str) -> JSON:
    """Status of a new object, from the schema.

    Without it kstatus takes one that nobody looks at, the operator being away, for a healthy one.
    """
    message = f"Waiting for the operator to look at this {thing}"
    told = (("Ready", "Unknown"), ("Reconciling", "True"))
    return {
        "phase": Phase.PENDING.value,
        "conditions": [{"type": kind, "status": status, "message": message, **_NEVER} for kind, status in told],
    }


def finetune_job() -> JSON:
    """FineTuneJob: one training."""
    spec = structural(JobInput, describe)
    attach_rules(spec, preset=False)
    spec["properties"]["desiredState"]["x-kubernetes-validations"] = [_validation(CANCELLED_IS_FINAL)]
    status = {**structural(FineTuneJobStatus, describe_meaning), "default": nobody_looked("job")}
    for block in status["properties"].values():
        if block["type"] == "object":
            block["x-kubernetes-map-type"] = "atomic"  # the operator writes it whole: no manager for each field, which doubled a status
    schema = _root("One training: what to train on what, how and where. The status tells how far it is.", spec, status)
    schema["properties"]["metadata"]["properties"] = {"name": {"type": "string"}}
    schema["x-kubernetes-validations"] = [{"fieldPath": ".metadata.name", **_validation(JOB_NAME)}]
    version: JSON = {
        **_version(schema, JOB_COLUMNS),
        "selectableFields": SELECTABLE,
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
    }
    return _definition("Namespaced", KIND, PLURAL, "ftj", version)


def finetune_preset() -> JSON:
    """FineTunePreset: a partial spec to start jobs of a namespace from."""
    return _definition("Namespaced", PRESET_KIND, PRESET_PLURAL, "ftp", _preset_version())


def cluster_finetune_preset() -> JSON:
    """ClusterFineTunePreset: a partial spec to start any job from."""
    return _definition("Cluster", CLUSTER_PRESET_KIND, CLUSTER_PRESET_PLURAL, "cftp", _preset_version())


def training_method() -> JSON:
    """TrainingMethod: an administrator's own program, for jobs to choose."""
    spec = structural(MethodInput, describe_range)
    for name, rules in (("parameters", PARAMETER_RULES), ("env", NAME_RULES)):
        rule, message = UNIQUE_NAMES
        spec["properties"][name]["x-kubernetes-validations"] = [{"message": message, "rule": rule}]
        spec["properties"][name]["items"]["x-kubernetes-validations"] = [_validation(each) for each in rules]
    schema = _root("A training of the administrators' own: image, program and the parameters jobs may give it.", spec)
    return _definition("Cluster", METHOD_KIND, METHOD_PLURAL, "trm", _version(schema, METHOD_COLUMNS))


def base_model() -> JSON:
    """BaseModel: an entry of the catalogue of models, for jobs to choose."""
    spec = structural(BaseModelInput, describe_range)
    attach_rules(spec, ENTRY_RULES, preset=False)
    attach_rules(spec["properties"]["defaults"], DEFAULT_RULES, preset=True)
    schema = _root("A model to start from, as the administrators offer it. Jobs choose it by model.uri ref:name.", spec)
    return _definition("Cluster", BASE_MODEL_KIND, BASE_MODEL_PLURAL, "ftbm", _version(schema, BASE_MODEL_COLUMNS))


def gpu_type() -> JSON:
    """GpuType: an entry of the catalogue of GPUs, for jobs to choose."""
    spec = structural(GpuTypeInput, describe_range)
    attach_rules(spec, GPU_TYPE_RULES, preset=False)
    schema = _root("A kind of GPU, as the administrators offer it. Jobs choose it by resources.gpuType.", spec)
    return _definition("Cluster", GPU_TYPE_KIND, GPU_TYPE_PLURAL, "ftgpu", _version(schema, GPU_TYPE_COLUMNS))


def dataset() -> JSON:
    """Dataset: data that is looked at once, for jobs to choose."""
    spec = structural(DatasetInput, describe_range)
    attach_rules(spec, DATASET_RULES, preset=False)
    status = {**structural(DatasetStatus, describe_meaning), "default": nobody_looked("dataset")}
    schema = _root("Data that is looked at before anything is trained on it. Jobs choose it by dataset.uri ref:name.", spec, status)
    schema["properties"]["metadata"]["properties"] = {"name": {"type": "string"}}
    schema["x-kubernetes-validations"] = [{"fieldPath": ".metadata.name", **_validation(DATASET_NAME)}]
    version: JSON = {
        **_version(schema, DATASET_COLUMNS),
        "selectableFields": SELECTABLE,
        "subresources": {"status": {}},
    }
    return _definition("Namespaced", DATASET_KIND, DATASET_PLURAL, "ftds", version)


def budget() -> JSON:
    """Budget: what the jobs of a namespace may cost."""
    spec = structural(BudgetInput, describe_range)
    given = spec["properties"]["credits"]
    given |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["at"]}
    given["x-kubernetes-validations"] = [_validation(APPEND_ONLY)]
    given["items"]["x-kubernetes-validations"] = [_validation(UNCHANGED)]
    spec["properties"]["currency"]["x-kubernetes-validations"] = [_validation(SAME_CURRENCY)]
    unseen = {"conditions": nobody_looked("budget")["conditions"]}
    status = {**structural(BudgetStatus, describe_meaning), "default": unseen}
    status["properties"]["shares"]["x-kubernetes-map-type"] = "atomic"  # as in a job's status: no manager for each field
    schema = _root("Money for the jobs of a namespace: they start while it lasts, and are paused when it is used up.", spec, status)
    schema["properties"]["metadata"]["properties"] = {"name": {"type": "string"}}
    schema["x-kubernetes-validations"] = [{"fieldPath": ".metadata.name", **_validation(BUDGET_NAMED)}]
    version: JSON = {**_version(schema, BUDGET_COLUMNS), "subresources": {"status": {}}}
    return _definition("Namespaced", BUDGET_KIND, BUDGET_PLURAL, "ftb", version)


def definitions() -> dict[str, JSON]:
    """Every CustomResourceDefinition by its name."""
    catalogues = (finetune_preset(), cluster_finetune_preset(), training_method(), base_model(), gpu_type())
    documents = (finetune_job(), *catalogues, dataset(), budget())
    return {document["metadata"]["name"]: document for document in documents}


def _preset_version() -> JSON:
    spec = structural(PresetInput, describe)
    attach_rules(spec, preset=True)
    schema = _root("A partial FineTuneJob spec. Jobs name it in presetRef; what they write themselves wins over it.", spec)
    return _version(schema, PRESET_COLUMNS)


def _root(description: str, spec: JSON, status: JSON | None = None) -> JSON:
    properties: dict[str, Any] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": "Kind of this object."},
        "metadata": {"type": "object"},
        "spec": spec,
    }
    if status is not None:
        properties["status"] = status
    return {"description": description, "type": "object", "required": ["spec"], "properties": properties}


def _version(schema: JSON, columns: list[JSON]) -> JSON:
    return {
        "name": VERSION,
        "served": True,
        "storage": True,
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": schema},
    }


def _validation(rule: SchemaRule | EntryRule) -> JSON:
    return {"message": rule.message, "rule": rule.cel}


def _definition(scope: str, kind: str, plural: str, short: str, version: JSON) -> JSON:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": scope,
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short],
                "categories": [CATEGORY],
            },
            "versions": [version],
        },
    }

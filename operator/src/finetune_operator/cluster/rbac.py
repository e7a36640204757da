"""The rights the operator needs, beside the code that needs them. The chart's Roles are tested against this table."""

from __future__ import annotations

from typing import NamedTuple

from finetune_api.constants import (
    BASE_MODEL_PLURAL,
    BUDGET_PLURAL,
    CLUSTER_PRESET_PLURAL,
    DATASET_PLURAL,
    GPU_TYPE_PLURAL,
    GROUP,
    METHOD_PLURAL,
    PLURAL,
    PRESET_PLURAL,
)


class Right(NamedTuple):
    """Verbs on a resource, and why."""

    group: str
    resource: str
    verbs: tuple[str, ...]
    why: str
    names: tuple[str, ...] = ()
    """Only on objects of these names; the chart fills in its own."""


JOB_NAMESPACES: tuple[Right, ...] = (
    Right(
        GROUP,
        PLURAL,
        ("get", "list", "watch", "patch"),
        "observe jobs; patch: the cleanup finalizer (metadata only, spec is never written)",
    ),
    Right(GROUP, f"{PLURAL}/status", ("patch",), "write status"),
    Right(GROUP, f"{PLURAL}/finalizers", ("update",), "owner references with blockOwnerDeletion where the API server enforces it"),
    Right(GROUP, PRESET_PLURAL, ("get",), "resolve spec.presetRef"),
    Right(GROUP, DATASET_PLURAL, ("get", "list", "watch"), "look at Datasets; resolve spec.dataset.uri: ref:name"),
    Right(GROUP, f"{DATASET_PLURAL}/status", ("patch",), "write what a look found"),
    Right(GROUP, BUDGET_PLURAL, ("get", "list", "watch"), "what jobs may cost"),
    Right(GROUP, f"{BUDGET_PLURAL}/status", ("patch",), "write what they have cost, and what is reserved for them"),
    Right("batch", "jobs", ("get", "list", "watch", "create", "delete"), "runs and verbs; never patched"),
    Right("", "pods", ("get", "list", "watch"), "state of the pods; whose token posts progress"),
    Right("", "services", ("get", "list", "create", "delete"), "headless Service of a run"),
    Right("", "configmaps", ("get", "list", "create", "delete", "patch"), "run configs (immutable); patch: the CA bundle finetune-ca"),
    Right("", "events", ("create",), "the story kubectl describe tells"),
    Right("kueue.x-k8s.io", "workloads", ("list",), "why a queued run waits (resources.queue); Kueue's objects are never written"),
)
"""Where jobs are: a ClusterRole, or in namespaced mode a Role in each watched namespace."""

CLUSTER: tuple[Right, ...] = (
    Right(GROUP, CLUSTER_PRESET_PLURAL, ("get",), "resolve spec.presetRef"),
    Right(GROUP, METHOD_PLURAL, ("get",), "resolve spec.methodRef"),
    Right(GROUP, BASE_MODEL_PLURAL, ("get",), "resolve spec.model.uri: ref:name"),
    Right(GROUP, GPU_TYPE_PLURAL, ("get", "list"), "resolve spec.resources.gpuType; list: the names there are, and those that fit"),
    Right("authentication.k8s.io", "tokenreviews", ("create",), "check the tokens of progress posts"),
)
"""Always a ClusterRole. Left out with FINETUNE_OPERATOR_CLUSTER_READS=false: no presets of the cluster, no TrainingMethods, BaseModels
and GpuTypes, tokens verified offline by JWKS."""

OWN_NAMESPACE: tuple[Right, ...] = (
    Right("coordination.k8s.io", "leases", ("create",), "leader election"),
    Right("coordination.k8s.io", "leases", ("get", "update"), "leader election", names=("finetune-operator",)),
    Right(
        "",
        "secrets",
        ("get", "patch"),
        "certificate of the progress endpoint: the one Secret the operator may read",
        names=("finetune-operator-tls",),
    ),
)
"""A Role in the operator's own namespace."""

"""Paths of the resources the operator uses."""

from __future__ import annotations

from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource of the Kubernetes API."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As in a manifest."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection or of one object. ``namespace`` None: cluster-scoped, or all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part is not None]
        return "/".join(parts)


FINETUNE_JOBS = Resource(GROUP, VERSION, PLURAL, KIND)
PRESETS = Resource(GROUP, VERSION, PRESET_PLURAL, PRESET_KIND)
CLUSTER_PRESETS = Resource(GROUP, VERSION, CLUSTER_PRESET_PLURAL, CLUSTER_PRESET_KIND)
JOBS = Resource("batch", "v1", "jobs", "Job")
BASE_MODELS = Resource(GROUP, VERSION, BASE_MODEL_PLURAL, BASE_MODEL_KIND)
BUDGETS = Resource(GROUP, VERSION, BUDGET_PLURAL, BUDGET_KIND)
DATASETS = Resource(GROUP, VERSION, DATASET_PLURAL, DATASET_KIND)
GPU_TYPES = Resource(GROUP, VERSION, GPU_TYPE_PLURAL, GPU_TYPE_KIND)
METHODS = Resource(GROUP, VERSION, METHOD_PLURAL, METHOD_KIND)
PODS = Resource("", "v1", "pods", "Pod")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SERVICES = Resource("", "v1", "services", "Service")
SECRETS = Resource("", "v1", "secrets", "Secret")
EVENTS = Resource("", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")
KUEUE_WORKLOADS = tuple(Resource("kueue.x-k8s.io", version, "workloads", "Workload") for version in ("v1beta2", "v1beta1"))
"""Newest first; a cluster has one of them, or no Kueue."""

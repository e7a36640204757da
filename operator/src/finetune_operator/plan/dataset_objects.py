"""What exists of a Dataset, and a decision on it, as values.

::

    Dataset --owns--> Job <dataset>-look-<N> --owns--> pod (component look)
            --owns--> ConfigMap of the same name
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from finetune_api.constants import (
    ANNOTATION_OPERATOR_VERSION,
    API_VERSION,
    DATASET_KIND,
    LABEL_COMPONENT,
    LABEL_DATASET,
    LABEL_JOB,
    LABEL_MANAGED_BY,
    LABEL_RUN,
    MANAGED_BY,
    verb_name,
)
from finetune_api.models.dataset import DatasetStatus
from finetune_operator.plan.decision import Event, Operation
from finetune_operator.plan.observed import Leftover, Manifest, OwnObject, Pod, Workload, read_own

COMPONENT_LOOK = "look"


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetObject(OwnObject):
    """A Dataset."""

    kind: str = DATASET_KIND
    status: DatasetStatus = field(default_factory=DatasetStatus)

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> DatasetObject:
        """Read a Dataset; raises :class:`pydantic.ValidationError` for a status no version of this operator wrote."""
        return cls(status=DatasetStatus.model_validate(manifest.get("status") or {}), **read_own(manifest))


def look_name(dataset: str, look: int) -> str:
    """Name of the Job and the ConfigMap of a look."""
    return verb_name(dataset, COMPONENT_LOOK, look)


def look_labels(dataset: DatasetObject, look: int) -> dict[str, str]:
    """Labels of all that belongs to a look. The job's is empty: watches and network policies ask whether it is there."""
    return {
        LABEL_JOB: "",
        LABEL_DATASET: dataset.name,
        LABEL_RUN: str(look),
        LABEL_COMPONENT: COMPONENT_LOOK,
        LABEL_MANAGED_BY: MANAGED_BY,
    }


def look_metadata(dataset: DatasetObject, look: int, *, version: str, annotations: Mapping[str, str]) -> Manifest:
    """Metadata of a look's Job and ConfigMap, which go with the Dataset."""
    owner = {"apiVersion": API_VERSION, "kind": DATASET_KIND, "name": dataset.name, "uid": dataset.uid, "controller": True}
    return {
        "name": look_name(dataset.name, look),
        "namespace": dataset.namespace,
        "labels": look_labels(dataset, look),
        "annotations": {ANNOTATION_OPERATOR_VERSION: version, **annotations},
        "ownerReferences": [owner],
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetObserved:
    """Everything one decision is made from."""

    dataset: DatasetObject
    look: Workload | None = None
    """The Job of the look after the last one that is in status."""
    pod: Pod | None = None
    """Its pod."""
    past: Workload | None = None
    """The Job of the last look in status, which is over."""
    past_config: Leftover | None = None
    """Its ConfigMap."""
    namesake: str | None = None
    """An older Dataset with the same displayName."""
    namespace_terminating: bool = False
    refusal: str = ""
    """Why the API server did not take the look's objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPlan:
    """What to do now, in order: operations, one status write, events."""

    operations: tuple[Operation, ...] = ()
    status: DatasetStatus
    events: tuple[Event, ...] = ()
    wake_seconds: float | None = None
    """Look again after this time even if nothing happens; 0 = at once; None: nothing is left to do until something changes."""

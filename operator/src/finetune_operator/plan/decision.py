"""A decision as data: what to create, delete, store and say. Nothing here has effects; two plans can be compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from finetune_api.models.status import FineTuneJobStatus
from finetune_operator.plan.observed import Manifest

Propagation = Literal["Foreground", "Background"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateRun:
    """Make a run: ConfigMap, Service, Job, in this order, each once; the Job last, so that a Job means a whole run.

    An object that exists and is ours counts as made, unless it is the leftover of a creation that broke off: then it is made anew.
    """

    run: int
    config_map: Manifest
    service: Manifest | None
    job: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateVerb:
    """Make a verb's ConfigMap and Job."""

    verb: str
    config_map: Manifest
    job: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishCa:
    """See to it that the CA bundle of the progress endpoint is in the job's namespace."""

    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteJob:
    """Delete a batch/v1 Job, only if it is still the one seen."""

    name: str
    uid: str
    propagation: Propagation


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteLeftover:
    """Delete a ConfigMap or Service, only if it is still the one seen."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetFinalizers:
    """Write ``metadata.finalizers`` as a whole; refused when the job changed meanwhile."""

    finalizers: tuple[str, ...]


Operation = CreateRun | CreateVerb | PublishCa | DeleteJob | DeleteLeftover | SetFinalizers


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A line of the story ``kubectl describe`` tells."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"
    key: str = ""
    """Events of one reason and key are the same event."""
    min_interval_seconds: float = 0.0
    """At most one event of this reason per job in this time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do now, in order: operations, one status write, events."""

    operations: tuple[Operation, ...] = ()
    status: FineTuneJobStatus
    events: tuple[Event, ...] = ()
    wake_seconds: float | None = None
    """Look again after this time even if nothing happens; 0 = at once."""

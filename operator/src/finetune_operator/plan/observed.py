"""What exists now, as values: the job, its workloads and pods, and what a decision needs beside them.

::

    FineTuneJob --owns--> Job <job>-r<N>            --owns--> pods (component trainer)
                --owns--> Job <job>-preflight-<N>   --owns--> pod  (component preflight); likewise inspect, export, cleanup
                --owns--> ConfigMap, Service of the same names
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from finetune_api.constants import BUDGET_KIND, KIND, LABEL_COMPONENT, LABEL_RUN
from finetune_api.contract.env import TRAINER_CONTAINER
from finetune_api.contract.run_config import RunConfig
from finetune_api.models.budget import BudgetStatus
from finetune_api.models.status import FineTuneJobStatus
from finetune_operator.plan.kueue import LABEL_QUEUE, QueueEntry

Manifest = dict[str, Any]
"""A Kubernetes object as JSON."""

COMPONENT_TRAINER = "trainer"


def parse_time(value: str | None) -> datetime | None:
    """An RFC 3339 time, None for an absent one."""
    return datetime.fromisoformat(value) if value else None


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnObject:
    """What every object of ours has, as read from the API server."""

    kind: str
    namespace: str
    name: str
    uid: str
    generation: int
    resource_version: str
    deleted_at: datetime | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    spec: Mapping[str, Any] = field(default_factory=dict)
    """As written by the user (and the schema defaults)."""
    stored_status: Mapping[str, Any] = field(default_factory=dict)
    """The status as JSON, to tell what a write would change."""


def read_own(manifest: Manifest) -> dict[str, Any]:
    """The values of an :class:`OwnObject`, but for its kind."""
    metadata = manifest["metadata"]
    return {
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "uid": metadata["uid"],
        "generation": metadata.get("generation", 0),
        "resource_version": metadata["resourceVersion"],
        "deleted_at": parse_time(metadata.get("deletionTimestamp")),
        "annotations": metadata.get("annotations") or {},
        "spec": manifest.get("spec") or {},
        "stored_status": manifest.get("status") or {},
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class JobObject(OwnObject):
    """A FineTuneJob."""

    kind: str = KIND
    created_at: datetime
    finalizers: tuple[str, ...] = ()
    status: FineTuneJobStatus = field(default_factory=FineTuneJobStatus)
    adopted: bool = False
    """Its run is known to the cluster and not yet to the stored status."""

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> JobObject:
        """Read a FineTuneJob; raises :class:`pydantic.ValidationError` for a status no version of this operator wrote."""
        created = parse_time(manifest["metadata"].get("creationTimestamp"))
        assert created is not None, "every stored object has a creation time"
        return cls(
            created_at=created,
            finalizers=tuple(manifest["metadata"].get("finalizers") or ()),
            status=FineTuneJobStatus.model_validate(manifest.get("status") or {}),
            **read_own(manifest),
        )

    @property
    def has_open_run(self) -> bool:
        """Whether a run is under way: its end is not recorded."""
        return bool(self.status.attempts) and self.status.attempts[-1].ended_at is None


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetObject(OwnObject):
    """A Budget."""

    kind: str = BUDGET_KIND
    status: BudgetStatus = field(default_factory=BudgetStatus)

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> BudgetObject:
        """Read a Budget; raises :class:`pydantic.ValidationError` for a status no version of this operator wrote."""
        return cls(status=BudgetStatus.model_validate(manifest.get("status") or {}), **read_own(manifest))

    @property
    def currency(self) -> str:
        """Of all its amounts."""
        return str(self.spec["currency"])

    @property
    def approval_above(self) -> Decimal | None:
        """Jobs that may cost more need approval; None: no job does."""
        written = self.spec.get("approvalAbove")
        return Decimal(written) if written is not None else None

    @property
    def checkpoint_quota(self) -> int | None:
        """Checkpoints that the namespace's jobs may write in all; None: any number."""
        written = self.spec.get("checkpointQuota")
        return int(written) if written is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A batch/v1 Job of ours: a run or a verb."""

    name: str
    uid: str
    component: str
    deleting: bool = False
    suspended: bool = False
    complete: bool = False
    failed: bool = False
    """The Failed condition: all pods have ended."""
    failing: bool = False
    """FailureTarget: the first pod failed, the others are being ended."""
    message: str = ""
    completions: int = 1
    created_at: datetime | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)
    queue: str | None = None
    """Kueue's LocalQueue it was put into."""

    @property
    def ended(self) -> bool:
        """Whether no pod of it runs any more and none will."""
        return self.complete or self.failed

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Workload:
        """Read a Job."""
        metadata, spec, status = manifest["metadata"], manifest.get("spec") or {}, manifest.get("status") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
        why = conditions.get("Failed") or conditions.get("FailureTarget") or {}
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            component=(metadata.get("labels") or {}).get(LABEL_COMPONENT, ""),
            deleting="deletionTimestamp" in metadata,
            suspended=bool(spec.get("suspend")),
            complete="Complete" in conditions,
            failed="Failed" in conditions,
            failing="FailureTarget" in conditions,
            message=f"{why.get('reason', '')}: {why.get('message', '')}" if why else "",
            completions=spec.get("completions", 1),
            created_at=parse_time(metadata.get("creationTimestamp")),
            annotations=metadata.get("annotations") or {},
            queue=(metadata.get("labels") or {}).get(LABEL_QUEUE),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of one of our Jobs, as far as decisions go."""

    name: str
    uid: str
    owner_name: str
    """The Job that owns it."""
    owner_uid: str
    component: str
    run: int
    index: int | None = None
    node: str = ""
    phase: str = "Pending"
    ready: bool = False
    deletion_time: datetime | None = None
    """When its grace is over, if it is being deleted."""
    disruption: str | None = None
    """Reason of the DisruptionTarget condition."""
    disrupted_at: datetime | None = None
    unschedulable: str | None = None
    """What the scheduler says, while no node fits."""
    scheduled: bool = False
    waiting: str | None = None
    """Reason why the trainer container (or one before it) waits."""
    waiting_message: str = ""
    started: bool = False
    """Whether the trainer container runs or has run."""
    started_at: datetime | None = None
    """When the trainer container started."""
    ended: bool = False
    """Whether no container runs: terminated, or never started in a pod that is over."""
    exit_code: int | None = None
    exit_reason: str = ""
    termination_message: str = ""
    finished_at: datetime | None = None

    @classmethod
    def from_manifest(cls, manifest: Manifest) -> Pod | None:
        """Read a pod; None unless a Job controls it."""
        metadata, status = manifest["metadata"], manifest.get("status") or {}
        owner = next((o for o in metadata.get("ownerReferences") or () if o.get("controller") and o.get("kind") == "Job"), None)
        if owner is None:
            return None
        labels = metadata.get("labels") or {}
        conditions = {c["type"]: c for c in status.get("conditions") or ()}
        scheduled = conditions.get("PodScheduled", {})
        disruption = conditions.get("DisruptionTarget", {})
        disrupted = disruption.get("status") == "True"
        unschedulable = scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable"
        return cls(
            name=metadata["name"],
            uid=metadata["uid"],
            owner_name=owner["name"],
            owner_uid=owner["uid"],
            component=labels.get(LABEL_COMPONENT, ""),
            run=_number(labels.get(LABEL_RUN)) or 0,
            index=_number((metadata.get("annotations") or {}).get("batch.kubernetes.io/job-completion-index")),
            node=(manifest.get("spec") or {}).get("nodeName") or "",
            phase=status.get("phase", "Pending"),
            ready=conditions.get("Ready", {}).get("status") == "True",
            deletion_time=parse_time(metadata.get("deletionTimestamp")),
            disruption=disruption.get("reason", "") if disrupted else None,
            disrupted_at=parse_time(disruption.get("lastTransitionTime")) if disrupted else None,
            unschedulable=scheduled.get("message", "") if unschedulable else None,
            scheduled=scheduled.get("status") == "True" or bool((manifest.get("spec") or {}).get("nodeName")),
            **_container(status),
        )


def _container(status: Manifest) -> dict[str, Any]:
    """State of the trainer container, or of the pod when there is none."""
    over = status.get("phase") in ("Succeeded", "Failed")
    states = [c for c in status.get("containerStatuses") or () if c.get("name") == TRAINER_CONTAINER]
    if not states:
        return {"ended": over, "exit_reason": status.get("reason", "") if over else "", "termination_message": ""}
    state = states[0].get("state") or {}
    waiting, terminated = state.get("waiting"), state.get("terminated")
    if terminated:
        return {
            "started": True,
            "ended": True,
            "exit_code": terminated.get("exitCode"),
            "started_at": parse_time(terminated.get("startedAt")),
            "exit_reason": terminated.get("reason", ""),
            "termination_message": terminated.get("message", ""),
            "finished_at": parse_time(terminated.get("finishedAt")),
        }
    if waiting:
        return {"ended": over, "waiting": waiting.get("reason", ""), "waiting_message": waiting.get("message", "")}
    running = state.get("running") or {}
    return {"started": "running" in state, "started_at": parse_time(running.get("startedAt")), "ended": over}


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,9}", text) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """A ConfigMap or Service of a run or verb that is over."""

    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PresetFound:
    """The preset a job names, or why there is none."""

    kind: str
    spec: Mapping[str, Any] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found under the name of a TrainingMethod, BaseModel, Dataset or GpuType that a job, or its preset, says."""

    name: str
    manifest: Manifest | None = None
    """None: there is none, or it may not be read."""
    may_read: bool = True
    others: tuple[str, ...] = ()
    """Names there are in place of a GpuType that is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LastRun:
    """What the job's last run was made from: the frame every later run must fit into."""

    config: RunConfig
    asked: Mapping[str, Any]
    """Values of the job at that time that the run itself had to deviate from (``training.gradAccumSteps`` after a resize)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything one decision is made from."""

    job: JobObject
    workload: Workload | None = None
    """The Job of run ``status.run``."""
    pods: tuple[Pod, ...] = ()
    """Pods of the job's runs, by owner: of this run and of any before it."""
    verbs: Mapping[str, Workload] = field(default_factory=dict)
    """Verb (preflight, inspect, export, cleanup) -> its Job."""
    verb_pods: tuple[Pod, ...] = ()
    leftovers: tuple[Leftover, ...] | None = None
    """ConfigMaps and Services of this job; None = not looked for."""
    preset: PresetFound | None = None
    method: Found | None = None
    base_model: Found | None = None
    dataset: Found | None = None
    gpu_type: Found | None = None
    gpu_memories: Mapping[str, str] = field(default_factory=dict)
    """GpuType -> its memory, looked for once a preflight has failed."""
    namesake: str | None = None
    """An older job with the same displayName."""
    budget: BudgetObject | None = None
    """The Budget of the namespace, looked for where the job may start, or has a price or a quota."""
    last_run: LastRun | None = None
    queue_entry: QueueEntry | None = None
    """Kueue's Workload of the run, looked for while the run's Job is suspended."""
    namespace_terminating: bool = False
    refusal: str = ""
    """Why the API server did not take the next run's objects."""

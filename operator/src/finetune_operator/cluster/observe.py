"""Reads: GETs by deterministic name and one LIST of pods; what a decision does not need is not read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from finetune_api.constants import (
    BUDGET_NAME,
    CLUSTER_PRESET_KIND,
    FINALIZER,
    LABEL_JOB,
    PRESET_KIND,
    run_name,
    verb_name,
)
from finetune_api.models.status import FINAL_PHASES
from finetune_api.resolve import chosen_dataset, chosen_gpu_type, chosen_method, chosen_model
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import NotFoundError
from finetune_operator.cluster.namesakes import older_namesake
from finetune_operator.cluster.resources import (
    BASE_MODELS,
    BUDGETS,
    CLUSTER_PRESETS,
    CONFIG_MAPS,
    DATASETS,
    FINETUNE_JOBS,
    GPU_TYPES,
    JOBS,
    KUEUE_WORKLOADS,
    METHODS,
    PODS,
    PRESETS,
    SERVICES,
    Resource,
)
from finetune_operator.plan.adopt import adopt_run, may_have_unnoted_run
from finetune_operator.plan.configmap import read_last_run
from finetune_operator.plan.decide import lacks_columns, needs_spec
from finetune_operator.plan.export import asks_again, export_name, is_exporting, needs_outputs
from finetune_operator.plan.kueue import LABEL_JOB_UID, QueueEntry
from finetune_operator.plan.names import run_of
from finetune_operator.plan.observed import (
    BudgetObject,
    Found,
    JobObject,
    LastRun,
    Leftover,
    Manifest,
    Observed,
    Pod,
    PresetFound,
    Workload,
)
from finetune_operator.plan.retention import is_retained
from finetune_operator.plan.unavailable import no_cluster_presets


@dataclass(frozen=True, slots=True)
class JobKey:
    """Names a FineTuneJob."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


async def observe_job(client: Client, key: JobKey) -> JobObject | None:
    """The job as it is now; None when it is gone."""
    manifest = await client.get(FINETUNE_JOBS, key.namespace, key.name)
    return JobObject.from_manifest(manifest) if manifest is not None else None


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a look at a job knows beforehand."""

    cluster_reads: bool = True
    """Presets of the cluster, TrainingMethods, BaseModels and GpuTypes may be read."""
    namespace_terminating: bool = False
    """Creating something was refused for this reason."""
    thorough: bool = False
    """Creating something found it there: look for everything that could exist."""
    refusal: str = ""
    """Why the API server did not take the next run's objects."""


async def observe(client: Client, job: JobObject, known: Circumstances) -> Observed:
    """Everything a decision on this job is made from."""
    if known.thorough or may_have_unnoted_run(job):
        job = await _with_unnoted_run(client, job)
    workload = await _workload(client, job)
    verbs = await _verbs(client, job, workload, thorough=known.thorough)
    pods = await _pods(client, job) if job.status.run > 0 or verbs else []
    wants_spec = needs_spec(job) or needs_outputs(job, workload)
    asks_store = workload is None or job.deleted_at is not None
    again = is_exporting(job) or asks_again(job)
    unfinished = job.status.phase not in FINAL_PHASES or job.deleted_at is not None or is_retained(job) or again
    wants_last_run = job.status.run > 0 and unfinished and (wants_spec or asks_store or lacks_columns(job))
    reads = known.cluster_reads
    preset = await _preset(client, job, cluster_reads=reads) if wants_spec else None
    of_preset = preset.spec if preset is not None else None
    return Observed(
        job=job,
        workload=workload,
        pods=tuple(pod for pod in pods if run_of(job.name, pod.owner_name) is not None),
        verbs=verbs,
        verb_pods=tuple(pod for pod in pods if run_of(job.name, pod.owner_name) is None),
        leftovers=await _leftovers(client, job) if _wants_leftovers(job, workload, verbs) else None,
        preset=preset,
        method=await _find(client, METHODS, None, chosen_method(job.spec, of_preset), may_read=reads) if wants_spec else None,
        base_model=await _find(client, BASE_MODELS, None, chosen_model(job.spec, of_preset), may_read=reads) if wants_spec else None,
        dataset=await _find(client, DATASETS, job.namespace, chosen_dataset(job.spec, of_preset)) if wants_spec else None,
        namesake=await older_namesake(client, FINETUNE_JOBS, job) if wants_spec else None,
        gpu_type=await _find_gpu_type(client, chosen_gpu_type(job.spec, of_preset), may_read=reads) if wants_spec else None,
        gpu_memories=await _gpu_memories(client) if reads and _has_failed(verbs.get("preflight")) else {},
        budget=await find_budget(client, job.namespace) if _may_have_share(job, of_preset, wants_spec=wants_spec) else None,
        last_run=await _run_made_from(client, job, job.status.run) if wants_last_run else None,
        queue_entry=await _queue_entry(client, workload, job.namespace) if workload is not None and workload.suspended else None,
        namespace_terminating=known.namespace_terminating,
        refusal=known.refusal,
    )


async def _queue_entry(client: Client, workload: Workload, namespace: str) -> QueueEntry | None:
    """Kueue's Workload of a suspended Job; None where there is none, or no Kueue."""
    for resource in KUEUE_WORKLOADS:
        try:
            found = await client.list(resource, namespace, f"{LABEL_JOB_UID}={workload.uid}")
        except NotFoundError:
            continue
        return QueueEntry.from_manifest(found[0]) if found else None
    return None


async def _with_unnoted_run(client: Client, job: JobObject) -> JobObject:
    """The job with the run in its status that exists and was never noted, if there is one."""
    found = _ours(job, await client.get(JOBS, job.namespace, run_name(job.name, job.status.run + 1)))
    if found is None:
        return job
    return adopt_run(job, found, await _run_made_from(client, job, job.status.run + 1))


async def _workload(client: Client, job: JobObject) -> Workload | None:
    """The Job of the job's run, if it is ours."""
    if job.status.run == 0:
        return None
    return _ours(job, await client.get(JOBS, job.namespace, run_name(job.name, job.status.run)))


def _ours(job: JobObject, manifest: Manifest | None) -> Workload | None:
    return Workload.from_manifest(manifest) if manifest is not None and is_owned_by(manifest, job.uid) else None


def is_owned_by(manifest: Manifest, uid: str) -> bool:
    """Whether an object belongs to the job with this uid."""
    return any(owner.get("uid") == uid for owner in manifest["metadata"].get("ownerReferences") or ())


async def _pods(client: Client, job: JobObject) -> list[Pod]:
    """Pods with the job's label that a Job controls; who they belong to is decided by owner, not by label."""
    pods = await client.list(PODS, job.namespace, f"{LABEL_JOB}={job.name}")
    return [pod for pod in map(Pod.from_manifest, pods) if pod is not None]


async def _verbs(client: Client, job: JobObject, workload: Workload | None, *, thorough: bool) -> Mapping[str, Workload]:
    """The verbs that may exist in the job's situation."""
    status = job.status
    names = {}
    open_run = bool(status.attempts) and status.attempts[-1].ended_at is None
    if status.run > 0 and workload is None:
        names["inspect"] = verb_name(job.name, "inspect", status.run)
    if thorough or (not open_run and _may_have_preflight(job)):
        names["preflight"] = verb_name(job.name, "preflight", status.run + 1)
    if (export := export_name(job)) is not None:
        names["export"] = export
    removed = job.status.artifacts_removed_at is not None
    if (job.deleted_at is not None and FINALIZER in job.finalizers) or is_retained(job) or removed:
        names["cleanup"] = verb_name(job.name, "cleanup", status.run)
    found = {verb: _ours(job, await client.get(JOBS, job.namespace, name)) for verb, name in names.items()}
    return {verb: each for verb, each in found.items() if each is not None}


def _may_have_preflight(job: JobObject) -> bool:
    """Whether a preflight could be there: never for a job on CPU, nor for one that nobody has looked at yet."""
    resolved = job.status.resolved.get("resources.device")
    device = (job.spec.get("resources") or {}).get("device") or (resolved.value if resolved is not None else None)
    return device != "cpu" and job.status.observed_generation > 0 and job.status.phase not in FINAL_PHASES


def _wants_leftovers(job: JobObject, workload: Workload | None, verbs: Mapping[str, Workload]) -> bool:
    """Whether something is about to be cleared away."""
    open_run = bool(job.status.attempts) and job.status.attempts[-1].ended_at is None
    if job.status.phase in FINAL_PHASES:
        return True
    return bool(verbs) or (not open_run and workload is not None and not workload.deleting)


async def _leftovers(client: Client, job: JobObject) -> tuple[Leftover, ...]:
    selector = f"{LABEL_JOB}={job.name}"
    found = [(resource.kind, await client.list(resource, job.namespace, selector)) for resource in (CONFIG_MAPS, SERVICES)]
    return tuple(
        Leftover(kind=kind, name=manifest["metadata"]["name"], uid=manifest["metadata"]["uid"])
        for kind, manifests in found
        for manifest in manifests
        if is_owned_by(manifest, job.uid) and "deletionTimestamp" not in manifest["metadata"]
    )


async def _run_made_from(client: Client, job: JobObject, run: int) -> LastRun | None:
    """What a run was made from, if its ConfigMap is there and ours."""
    manifest = await client.get(CONFIG_MAPS, job.namespace, run_name(job.name, run))
    return read_last_run(manifest) if manifest is not None and is_owned_by(manifest, job.uid) else None


async def _preset(client: Client, job: JobObject, *, cluster_reads: bool) -> PresetFound | None:
    """The preset the job names: of its namespace, else of the cluster."""
    reference: Mapping[str, Any] | None = job.spec.get("presetRef")
    if reference is None:
        return None
    name, kind = str(reference.get("name", "")), reference.get("kind")
    if kind in (None, PRESET_KIND):
        manifest = await client.get(PRESETS, job.namespace, name)
        if manifest is not None:
            return PresetFound(kind=PRESET_KIND, spec=manifest.get("spec") or {})
    if kind in (None, CLUSTER_PRESET_KIND):
        if not cluster_reads:
            return no_cluster_presets(name)
        manifest = await client.get(CLUSTER_PRESETS, None, name)
        if manifest is not None:
            return PresetFound(kind=CLUSTER_PRESET_KIND, spec=manifest.get("spec") or {})
    wanted = kind or f"{PRESET_KIND} of this namespace or {CLUSTER_PRESET_KIND}"
    return PresetFound(
        kind=kind or PRESET_KIND, problem=f"spec.presetRef.name: there is no {wanted} named {name}; create it, or name another one"
    )


async def _find(client: Client, resource: Resource, namespace: str | None, name: str | None, *, may_read: bool = True) -> Found | None:
    """What there is under a name, as far as it may be read; None when nothing is named."""
    if name is None:
        return None
    return Found(name=name, manifest=await client.get(resource, namespace, name) if may_read else None, may_read=may_read)


def _may_have_share(job: JobObject, of_preset: Mapping[str, Any] | None, *, wants_spec: bool) -> bool:
    """Whether the Budget of the namespace may have a say in a job: it may start, runs with a price or a quota, or names a GpuType."""
    if job.status.phase in FINAL_PHASES or job.deleted_at is not None:
        return False
    if wants_spec or (job.status.estimate is not None and job.status.estimate.quota is not None):
        return True
    return job.status.usage.hourly_rate is not None or chosen_gpu_type(job.spec, of_preset) is not None


async def find_budget(client: Client, namespace: str) -> BudgetObject | None:
    """The Budget of a namespace; None: there is none, or it is being deleted."""
    manifest = await client.get(BUDGETS, namespace, BUDGET_NAME)
    budget = BudgetObject.from_manifest(manifest) if manifest is not None else None
    return budget if budget is not None and budget.deleted_at is None else None


def _has_failed(verb: Workload | None) -> bool:
    return verb is not None and verb.failed and not verb.deleting


async def _gpu_memories(client: Client) -> dict[str, str]:
    """Memory of each GpuType, by name."""
    found = await client.list(GPU_TYPES, None, "")
    return {each["metadata"]["name"]: memory for each in found if (memory := (each.get("spec") or {}).get("memory")) is not None}


async def _find_gpu_type(client: Client, name: str | None, *, may_read: bool) -> Found | None:
    """Likewise; where there is none of the name, the names there are."""
    found = await _find(client, GPU_TYPES, None, name, may_read=may_read)
    if found is None or found.manifest is not None or not may_read:
        return found
    return replace(found, others=tuple(each["metadata"]["name"] for each in await client.list(GPU_TYPES, None, "")))

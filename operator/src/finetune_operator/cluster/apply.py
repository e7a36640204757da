"""Writes: what a plan says, each once. Nothing upserts; deletions and changes carry the uid of what was seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from finetune_api.models.status import RESTING_PHASES, FineTuneJobStatus
from finetune_api.models.status_base import StatusModel
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.errors import (
    ConflictError,
    ForbiddenError,
    InvalidError,
    NamespaceTerminatingError,
    NotFoundError,
    TakenError,
)
from finetune_operator.cluster.observe import is_owned_by
from finetune_operator.cluster.resources import CONFIG_MAPS, FINETUNE_JOBS, JOBS, SERVICES, Resource
from finetune_operator.plan.decision import CreateRun, CreateVerb, DeleteJob, DeleteLeftover, Operation, PublishCa, SetFinalizers
from finetune_operator.plan.document import status_document
from finetune_operator.plan.names import ANNOTATION_DIGEST
from finetune_operator.plan.observed import JobObject, Manifest, OwnObject

_KINDS: Mapping[str, Resource] = {"ConfigMap": CONFIG_MAPS, "Service": SERVICES}

PublishCaTo = Callable[[str], Awaitable[None]]


class ExistsError(Exception):
    """A run or verb that was to be created exists whole, made from other values: its creator ended before it could note it."""


class RefusedError(Exception):
    """The API server does not take a run's objects as they are: a field it judges more strictly than the schema, a policy, a quota."""


async def apply(client: Client, job: OwnObject, operation: Operation, publish_ca: PublishCaTo) -> None:
    """Carry out one operation of a plan."""
    match operation:
        case CreateRun():
            await _create_run(client, job, operation)
        case CreateVerb():
            await _create_config_map(client, job, operation.config_map)
            await _create(client, job, JOBS, operation.job)
        case PublishCa(namespace=namespace):
            await publish_ca(namespace)
        case DeleteJob(name=name, uid=uid, propagation=propagation):
            await client.delete(JOBS, job.namespace, name, uid=uid, propagation=propagation)
        case DeleteLeftover(kind=kind, name=name, uid=uid):
            await client.delete(_KINDS[kind], job.namespace, name, uid=uid)
        case SetFinalizers(finalizers=finalizers):
            metadata = {"uid": job.uid, "resourceVersion": job.resource_version, "finalizers": list(finalizers)}
            await client.patch(FINETUNE_JOBS, job.namespace, job.name, {"metadata": metadata})


async def _create_run(client: Client, job: OwnObject, operation: CreateRun) -> None:
    try:
        await _create_config_map(client, job, operation.config_map)
        if operation.service is not None:
            await _create(client, job, SERVICES, operation.service)
        await _create(client, job, JOBS, operation.job)
    except NamespaceTerminatingError:
        raise
    except (InvalidError, ForbiddenError) as error:
        raise RefusedError(error.message) from error


async def _create(client: Client, job: OwnObject, resource: Resource, manifest: Manifest) -> None:
    """Create; one that exists must be ours."""
    found = await client.create_once(resource, job.namespace, manifest)
    if found is not None:
        _check_owner(job, found)


async def _create_config_map(client: Client, job: OwnObject, manifest: Manifest) -> None:
    """Create the ConfigMap. One from other values is a leftover of a creation that broke off, unless the Job of its name exists."""
    found = await client.create_once(CONFIG_MAPS, job.namespace, manifest)
    if found is None:
        return
    _check_owner(job, found)
    if _digest(found) == _digest(manifest):
        return
    existing = await client.get(JOBS, job.namespace, manifest["metadata"]["name"])
    if existing is not None and is_owned_by(existing, job.uid):
        raise ExistsError(manifest["metadata"]["name"])
    await client.delete(CONFIG_MAPS, job.namespace, found["metadata"]["name"], uid=found["metadata"]["uid"])
    await client.create(CONFIG_MAPS, job.namespace, manifest)


def _digest(manifest: Manifest) -> str | None:
    digest = (manifest["metadata"].get("annotations") or {}).get(ANNOTATION_DIGEST)
    return str(digest) if digest is not None else None


def _check_owner(job: OwnObject, manifest: Manifest) -> None:
    if not is_owned_by(manifest, job.uid):
        metadata = manifest["metadata"]
        raise TakenError(
            f"{manifest.get('kind', 'object')} {metadata['namespace']}/{metadata['name']} exists and does not belong to {job.name}; "
            "delete it"
        )


async def write_status(client: Client, job: JobObject, status: FineTuneJobStatus) -> bool:
    """Write what differs from the stored status, as :func:`patch_status` does. False: nothing differs."""
    known = FineTuneJobStatus.model_validate(job.stored_status)
    patch = merge_patch(stored_document(known, without={"progress"}), status_document(status), job.stored_status)
    if status.phase in RESTING_PHASES and known.progress is not None and known.progress.eta:
        patch["progress"] = {"eta": None, "etaSeconds": None}
    return await patch_status(client, FINETUNE_JOBS, job, patch)


def stored_document(known: StatusModel, *, without: set[str] | None = None) -> Manifest:
    """What this version knows of a stored status, as it is stored."""
    return known.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=without)


async def patch_status(client: Client, resource: Resource, seen: OwnObject, patch: Manifest) -> bool:
    """Write a merge patch of a status, refused when its object changed since it was read, or is gone. False: the patch is empty."""
    if not patch:
        return False
    metadata = {"uid": seen.uid, "resourceVersion": seen.resource_version}
    try:
        await client.patch_status(resource, seen.namespace, seen.name, {"metadata": metadata, "status": patch})
    except NotFoundError as error:
        raise ConflictError(error.status, error.reason, "deleted since it was read") from error
    return True


_IDENTITY = ("type", "uri", "run", "startedAt", "requestedAt", "since")
"""Parts of a status that have one of these are about something, and about something else when it changes."""


def merge_patch(known: Mapping[str, Any], wanted: Mapping[str, Any], stored: Mapping[str, Any]) -> Manifest:
    """The JSON merge patch that makes what this version knows of a stored document the wanted one.

    What only a newer version knows stays, as long as what it says something of is there.
    """
    patch: Manifest = {key: None for key, old in known.items() if key not in wanted and old != {}}
    for key, value in wanted.items():
        old = known.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            gone = {} if _same(value, old) else {name: None for name in stored[key] if name not in old}
            if inner := gone | merge_patch(old, value, stored[key]):
                patch[key] = inner
        elif old != value:
            known_items = old if isinstance(value, list) and isinstance(old, list) else None
            patch[key] = [_with_unknown(item, known_items, stored[key]) for item in value] if known_items is not None else value
    return patch


def _with_unknown(item: Any, known: list[Any], stored: list[Any]) -> Any:
    """An item of a list, which a merge patch replaces as a whole, with what is not known of it."""
    if not isinstance(item, dict):
        return item
    unknown = (
        {name: value for name, value in whole.items() if name not in old}
        for old, whole in zip(known, stored, strict=True)
        if isinstance(old, dict) and _same(item, old)
    )
    return {**next(unknown, {}), **item}


def _same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return all(one.get(name) == other.get(name) for name in _IDENTITY)

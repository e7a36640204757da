"""Reads and writes of Datasets: GETs by deterministic name, and one LIST of pods while a look is under way."""

from __future__ import annotations

from dataclasses import dataclass, replace

from finetune_api.constants import LABEL_DATASET
from finetune_api.models.dataset import DatasetStatus
from finetune_operator.cluster.apply import merge_patch, patch_status, stored_document
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.namesakes import older_namesake
from finetune_operator.cluster.observe import is_owned_by
from finetune_operator.cluster.resources import CONFIG_MAPS, DATASETS, JOBS, PODS
from finetune_operator.plan.dataset_objects import DatasetObject, DatasetObserved, look_name
from finetune_operator.plan.observed import Leftover, Manifest, Pod, Workload


@dataclass(frozen=True, slots=True)
class DatasetKey:
    """Names a Dataset."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/dataset/{self.name}"


async def observe_dataset(client: Client, key: DatasetKey) -> DatasetObserved | None:
    """Everything a decision on this Dataset is made from; None when it is gone."""
    manifest = await client.get(DATASETS, key.namespace, key.name)
    if manifest is None:
        return None
    dataset = DatasetObject.from_manifest(manifest)
    if dataset.deleted_at is not None:
        return DatasetObserved(dataset=dataset)
    observed = DatasetObserved(dataset=dataset, namesake=await older_namesake(client, DATASETS, dataset))
    looks = dataset.status.looks
    if (look := await _look(client, dataset, looks + 1)) is not None:
        observed = replace(observed, look=look, pod=await _pod(client, dataset, look))
    if looks == 0:
        return observed
    return replace(observed, past=await _look(client, dataset, looks), past_config=await _config(client, dataset, looks))


async def _look(client: Client, dataset: DatasetObject, number: int) -> Workload | None:
    manifest = await client.get(JOBS, dataset.namespace, look_name(dataset.name, number))
    return Workload.from_manifest(manifest) if manifest is not None and is_owned_by(manifest, dataset.uid) else None


async def _pod(client: Client, dataset: DatasetObject, look: Workload) -> Pod | None:
    pods = await client.list(PODS, dataset.namespace, f"{LABEL_DATASET}={dataset.name}")
    return next((pod for pod in map(Pod.from_manifest, pods) if pod is not None and pod.owner_uid == look.uid), None)


async def _config(client: Client, dataset: DatasetObject, number: int) -> Leftover | None:
    manifest = await client.get(CONFIG_MAPS, dataset.namespace, look_name(dataset.name, number))
    if manifest is None or not is_owned_by(manifest, dataset.uid) or "deletionTimestamp" in manifest["metadata"]:
        return None
    return Leftover(kind="ConfigMap", name=manifest["metadata"]["name"], uid=manifest["metadata"]["uid"])


async def write_dataset_status(client: Client, dataset: DatasetObject, status: DatasetStatus) -> bool:
    """Write what differs from the stored status, as :func:`patch_status` does. False: nothing differs."""
    patch = merge_patch(stored_document(dataset.status), dataset_status_document(status), dataset.stored_status)
    return await patch_status(client, DATASETS, dataset, patch)


def dataset_status_document(status: DatasetStatus) -> Manifest:
    """The status as stored: without what has its default, but for what columns and kstatus read."""
    compact = status.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    return {**compact, **status.model_dump(mode="json", by_alias=True, include={"phase", "observed_generation"})}

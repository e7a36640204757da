"""``cleanup``: deletes everything below the job's prefix (``output.retain: Delete``), or what of it is older than some time."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import FINAL_PREFIX, checkpoint_prefix, parse_checkpoint_prefix
from finetune_trainer.errors import configuration_error
from finetune_trainer.store.base import ObjectInfo, Store
from finetune_trainer.supervisor.environment import PodEnvironment, job_store
from finetune_trainer.verbs.answer import Answer, run_verb

BATCH = 1000
MARKERS = (
    "attempts/",
    "pinned.json",
    "prepared/",
    "metrics/",
    "logs/",
    "final/",
    "heartbeats/",
    "lineage.json",
    "samples.json",
    "prompts.json",
    "tensorboard/",
    "probe/",
)
"""First parts of all keys a job writes."""


def run_cleanup(environment: PodEnvironment, *, dry_run: bool, older_than: timedelta | None) -> int:
    """Delete or count; returns the exit code."""
    before = datetime.now(UTC) - older_than if older_than is not None else None
    return run_verb(environment, lambda config: clean(config, job_store(config, environment), dry_run=dry_run, before=before))


def clean(config: RunConfig, store: Store, *, dry_run: bool, before: datetime | None = None) -> Answer:
    """Delete every object the job wrote, or those last written before a moment; what others put under a shared prefix stays."""
    if config.store.uri.rstrip("/").count("/") < 3:
        raise configuration_error(f"{config.store.uri} is a whole bucket: only a prefix inside one is cleaned.")
    objects = list(store.list())
    own = [info for info in objects if is_ours(info.key)]
    chosen = own if before is None else last_written_before(own, before)
    size = sum(info.size for info in chosen)
    if not dry_run:
        keys = iter(info.key for info in chosen)
        while batch := list(itertools.islice(keys, BATCH)):
            store.delete(batch)
    foreign, younger = len(objects) - len(own), len(own) - len(chosen)
    notes = [f"{foreign} objects of others stay"] if foreign else []
    notes += [f"{younger} younger ones stay"] if younger else []
    message = f"{len(chosen)} objects ({size} bytes) under {config.store.uri} {'would be deleted' if dry_run else 'deleted'}"
    return Answer("; ".join([message, *notes]), {"objects": len(chosen), "bytes": size, "foreign": foreign, "younger": younger})


def last_written_before(objects: Iterable[ObjectInfo], moment: datetime) -> list[ObjectInfo]:
    """Choose by age. What belongs together is as old as its youngest object: a checkpoint is never half deleted."""
    groups: defaultdict[str, list[ObjectInfo]] = defaultdict(list)
    for info in objects:
        groups[group_of(info.key)].append(info)
    return [info for group in groups.values() if max(info.modified for info in group) < moment for info in group]


def group_of(key: str) -> str:
    """What an object is of use with only: its checkpoint, the prepared rows of its key, the final result, or itself alone."""
    place = parse_checkpoint_prefix(key)
    if place is not None:
        return checkpoint_prefix(*place)
    folders = key.split("/")
    parts = {"prepared": 2, FINAL_PREFIX: 1}.get(folders[0], len(folders))
    return "/".join(folders[:parts])


def is_ours(key: str) -> bool:
    """Whether a key follows the layout of a job's store."""
    first = key.partition("/")[0]
    return key in MARKERS or f"{first}/" in MARKERS or (first[:1] == "a" and first[1:].isdigit())

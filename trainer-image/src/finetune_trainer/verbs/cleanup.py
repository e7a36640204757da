"""``cleanup``: deletes everything below the job's prefix (``output.retain: Delete``)."""

from __future__ import annotations

import itertools

from finetune_api.contract.run_config import RunConfig
from finetune_trainer.errors import configuration_error
from finetune_trainer.store.base import Store
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


def run_cleanup(environment: PodEnvironment, *, dry_run: bool) -> int:
    """Delete or count; returns the exit code."""
    return run_verb(environment, lambda config: clean(config, job_store(config, environment), dry_run=dry_run))


def clean(config: RunConfig, store: Store, *, dry_run: bool) -> Answer:
    """Delete every object the job wrote; objects of others under a shared prefix (``output.uri``) stay and are counted."""
    if config.store.uri.rstrip("/").count("/") < 3:
        raise configuration_error(f"{config.store.uri} is a whole bucket: only a prefix inside one is cleaned.")
    objects = list(store.list())
    own = [info for info in objects if is_ours(info.key)]
    size = sum(info.size for info in own)
    if not dry_run:
        keys = iter(info.key for info in own)
        while batch := list(itertools.islice(keys, BATCH)):
            store.delete(batch)
    done = "would be deleted" if dry_run else "deleted"
    foreign = len(objects) - len(own)
    note = f"; {foreign} objects of others stay" if foreign else ""
    return Answer(
        f"{len(own)} objects ({size} bytes) under {config.store.uri} {done}{note}", {"objects": len(own), "bytes": size, "foreign": foreign}
    )


def is_ours(key: str) -> bool:
    """Whether a key follows the layout of a job's store."""
    first = key.partition("/")[0]
    return key in MARKERS or f"{first}/" in MARKERS or (first[:1] == "a" and first[1:].isdigit())

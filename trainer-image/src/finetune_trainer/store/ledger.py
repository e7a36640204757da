"""What the store holds of a job: attempts, checkpoints with their manifests, and folders that never became checkpoints."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from pydantic import ValidationError

from finetune_api.contract.store import (
    MANIFEST,
    AttemptRecord,
    CheckpointRef,
    Manifest,
    attempt_number,
    checkpoint_prefix,
    parse_checkpoint_prefix,
)
from finetune_trainer.store.base import ObjectInfo, Store
from finetune_trainer.store.errors import ObjectNotFoundError

PARALLEL_READS = 16
ATTEMPTS = "attempts/"
LISTED = "a"
"""Common first letter of ``attempts/`` and ``a<n>/``: one listing shows both."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint whose manifest exists."""

    attempt: int
    step: int
    manifest: Manifest
    sizes: Mapping[str, int]
    """Files found in its folder, relative to it, with their sizes."""

    @property
    def ref(self) -> CheckpointRef:
        """Reference by attempt and step."""
        return CheckpointRef(attempt=self.attempt, step=self.step)

    @property
    def damage(self) -> tuple[str, ...]:
        """Files that are missing or have another size than the manifest says."""
        return tuple(file.path for file in self.manifest.files if self.sizes.get(file.path) != file.size)


@dataclass(frozen=True)
class Ledger:
    """A reading of the store, attempts and checkpoints in ascending order."""

    attempts: Mapping[int, AttemptRecord] = field(default_factory=dict)
    checkpoints: Sequence[StoredCheckpoint] = ()
    unfinished: Mapping[tuple[int, int], Sequence[str]] = field(default_factory=dict)
    """(attempt, step) -> keys of folders without a readable manifest."""

    @property
    def newest_attempt(self) -> int:
        """Highest number claimed or seen in a folder, 0 when there is none."""
        folders = [checkpoint.attempt for checkpoint in self.checkpoints] + [attempt for attempt, _ in self.unfinished]
        return max([*self.attempts, *folders], default=0)

    def find(self, ref: CheckpointRef) -> StoredCheckpoint | None:
        """Checkpoint of a reference into this store."""
        return next((found for found in self.checkpoints if (found.attempt, found.step) == (ref.attempt, ref.step)), None)


def manifest_key(attempt: int, step: int) -> str:
    """Key of a checkpoint's manifest."""
    return f"{checkpoint_prefix(attempt, step)}/{MANIFEST}"


def claimed_attempts(store: Store) -> list[int]:
    """Numbers of all claimed attempts, ascending."""
    return sorted(number for info in store.list(ATTEMPTS) if (number := attempt_number(info.key)) is not None)


def read_ledger(store: Store) -> Ledger:
    """Read attempts and checkpoints: one listing, and one small read per attempt and manifest."""
    listing = list(store.list(LISTED))
    numbers = sorted(number for info in listing if (number := attempt_number(info.key)) is not None)
    folders = _folders(listing)
    with ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="ledger") as pool:
        records = pool.map(lambda number: _read_attempt(store, number), numbers)
        manifests = pool.map(lambda place: _read_manifest(store, *place) if MANIFEST in folders[place] else None, folders)
    checkpoints, unfinished = [], {}
    for (attempt, step), manifest in zip(folders, manifests, strict=True):
        sizes = folders[attempt, step]
        if manifest is None:
            unfinished[attempt, step] = [f"{checkpoint_prefix(attempt, step)}/{name}" for name in sizes]
        else:
            checkpoints.append(StoredCheckpoint(attempt, step, manifest, sizes))
    attempts = {number: record for number, record in zip(numbers, records, strict=True) if record is not None}
    return Ledger(attempts, checkpoints, unfinished)


def _folders(listing: Iterable[ObjectInfo]) -> dict[tuple[int, int], dict[str, int]]:
    """Files and sizes per (attempt, step), ascending."""
    folders: defaultdict[tuple[int, int], dict[str, int]] = defaultdict(dict)
    for info in listing:
        place = parse_checkpoint_prefix(info.key)
        if place is not None:
            folders[place][info.key.removeprefix(checkpoint_prefix(*place) + "/")] = info.size
    return dict(sorted(folders.items()))


def _read_attempt(store: Store, number: int) -> AttemptRecord | None:
    try:
        return AttemptRecord.model_validate_json(store.get(f"{ATTEMPTS}{number}.json"))
    except (ObjectNotFoundError, ValidationError):
        return None


def _read_manifest(store: Store, attempt: int, step: int) -> Manifest | None:
    """Manifest of a checkpoint; None when it cannot be read: then the checkpoint does not exist."""
    try:
        return Manifest.model_validate_json(store.get(manifest_key(attempt, step)))
    except (ObjectNotFoundError, ValidationError):
        return None

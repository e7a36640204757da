"""Makes a checkpoint exist: files, then each pod's part, then pod 0's manifest, and only while no newer attempt has been claimed."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.store import (
    AttemptRecord,
    BestCheckpoint,
    CheckpointRef,
    EarlyStoppingState,
    Manifest,
    Part,
    Rewind,
    StoredFile,
    Trigger,
    UsageSeconds,
    attempt_key,
    checkpoint_prefix,
    part_name,
)
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import ObjectNotFoundError
from finetune_trainer.store.ledger import claimed_attempts, manifest_key
from finetune_trainer.store.transfer import upload_files


class SupersededError(Exception):
    """A newer attempt has been claimed: this one must commit nothing and leave."""

    def __init__(self, own: int, newer: int) -> None:
        super().__init__(f"attempt {newer} was claimed after this one ({own}): nothing more is committed here")
        self.newer = newer


@dataclass(frozen=True)
class Save:
    """A staged save of one pod and what is known about it."""

    step: int
    total_steps: int
    epoch: float
    trigger: Trigger
    staged: Path
    """Directory with this pod's files."""
    names: tuple[str, ...]
    is_best: bool = False
    best: BestCheckpoint | None = None
    early_stopping: EarlyStoppingState = field(default_factory=EarlyStoppingState)
    evaluation_due: bool = False
    metrics: dict[str, float] = field(default_factory=dict)
    steady_until: int | None = None
    usage: UsageSeconds = field(default_factory=UsageSeconds)

    @property
    def is_protected(self) -> bool:
        """Never replaced by a newer save: what a stop left, the best, the last."""
        return self.is_best or self.trigger in ("pause", "stop", "signal", "final", "command")


@dataclass(frozen=True)
class RunFacts:
    """What all checkpoints of an attempt have in common."""

    attempt: int
    pod: int
    pods: int
    world_size: int
    kind: Literal["lora", "full"]
    strategy: str
    global_batch: int
    parent: CheckpointRef | None
    rewinds: tuple[Rewind, ...] = ()


def claim_attempt(store: Store, record: AttemptRecord) -> bool:
    """Claim a number; False when somebody else has it."""
    return store.create(attempt_key(record.attempt), record.to_json().encode())


def check_not_superseded(store: Store, attempt: int) -> None:
    """Raise SupersededError when a higher attempt number exists."""
    newest = max(claimed_attempts(store), default=0)
    if newest > attempt:
        raise SupersededError(attempt, newest)


def upload_part(store: Store, save: Save, facts: RunFacts, done: dict[str, StoredFile]) -> Part:
    """Upload this pod's files of a save, and last the part that lists them; ``done`` remembers files between tries."""
    prefix = checkpoint_prefix(facts.attempt, save.step)
    files = upload_files(store, save.staged, prefix, save.names, done)
    part = Part(contract_version=CONTRACT_VERSION, attempt=facts.attempt, step=save.step, pod=facts.pod, pods=facts.pods, files=files)
    store.put(f"{prefix}/{part_name(facts.pod, facts.pods)}", part.to_json().encode())
    return part


def read_parts(store: Store, step: int, facts: RunFacts) -> list[Part] | None:
    """Parts of all pods; None while one is missing."""
    prefix = checkpoint_prefix(facts.attempt, step)
    parts = []
    for pod in reversed(range(facts.pods)):
        try:
            parts.append(Part.model_validate_json(store.get(f"{prefix}/{part_name(pod, facts.pods)}")))
        except ObjectNotFoundError:
            return None
    return parts[::-1]


def commit(store: Store, save: Save, parts: list[Part], facts: RunFacts, *, now: datetime) -> Manifest:
    """Write the manifest of a save whose parts are all there. Raises SupersededError, and then the checkpoint does not exist."""
    check_not_superseded(store, facts.attempt)
    manifest = Manifest(
        contract_version=CONTRACT_VERSION,
        attempt=facts.attempt,
        step=save.step,
        total_steps=save.total_steps,
        epoch=save.epoch,
        created_at=timestamp(now),
        trigger=save.trigger,
        kind=facts.kind,
        strategy=facts.strategy,
        world_size=facts.world_size,
        pods=facts.pods,
        global_batch=facts.global_batch,
        parent=facts.parent,
        files=[file for part in parts for file in part.files],
        best=save.best,
        early_stopping=save.early_stopping,
        evaluation_due=save.evaluation_due,
        metrics=save.metrics,
        steady_until=save.steady_until,
        usage=save.usage,
        rewinds=list(facts.rewinds),
    )
    if not store.create(manifest_key(facts.attempt, save.step), manifest.to_json().encode()):
        return Manifest.model_validate_json(store.get(manifest_key(facts.attempt, save.step)))
    return manifest


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

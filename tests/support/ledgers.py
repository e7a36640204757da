"""Histories of a job for tests: attempts and checkpoints without a store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune_api.contract.store import AttemptRecord, CheckpointRef, Manifest, StoredFile
from finetune_trainer.store.ledger import Ledger, StoredCheckpoint

FILES = ("adapter_model.safetensors", "optimizer.pt", "rng_state.pth", "trainer_state.json")


def ref(attempt: int, step: int) -> CheckpointRef:
    """Reference to a checkpoint of the job."""
    return CheckpointRef(attempt=attempt, step=step)


def make_attempt(number: int, parent: CheckpointRef | None = None, resume_from: str | None = None) -> AttemptRecord:
    """A claimed attempt."""
    return AttemptRecord(
        contract_version=1,
        attempt=number,
        run=number,
        pod_uid=f"uid-{number}",
        pod_name=f"job-r{number}-0",
        node="node1",
        started_at="2026-01-01T00:00:00Z",
        parent=parent,
        resume_from=resume_from,
        world_size=1,
    )


def make_manifest(attempt: int, step: int, parent: CheckpointRef | None = None, *, resumable: bool = True) -> Manifest:
    """A manifest of four files of ten bytes."""
    return Manifest(
        contract_version=1,
        attempt=attempt,
        step=step,
        total_steps=1000,
        epoch=step / 100,
        created_at="2026-01-01T00:00:00Z",
        trigger="steps",
        kind="lora",
        strategy="none",
        world_size=1,
        pods=1,
        global_batch=8,
        parent=parent,
        resumable=resumable,
        files=[StoredFile(path=name, size=10, sha256="0" * 64) for name in FILES],
    )


def make_checkpoint(
    attempt: int, step: int, parent: CheckpointRef | None = None, *, resumable: bool = True, missing: Sequence[str] = ()
) -> StoredCheckpoint:
    """A checkpoint in the store, whole but for the ``missing`` files."""
    manifest = make_manifest(attempt, step, parent, resumable=resumable)
    return StoredCheckpoint(attempt, step, manifest, {file.path: file.size for file in manifest.files if file.path not in missing})


def make_ledger(attempts: Mapping[int, AttemptRecord], checkpoints: Sequence[StoredCheckpoint]) -> Ledger:
    """A history, its checkpoints in the order a store lists them."""
    return Ledger(dict(sorted(attempts.items())), sorted(checkpoints, key=lambda found: (found.attempt, found.step)))

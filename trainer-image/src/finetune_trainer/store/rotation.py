"""Which checkpoints go: a pure plan, and its execution in an order that never lets a manifest promise a file that is gone."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from finetune_api.contract.store import CheckpointRef, checkpoint_prefix
from finetune_trainer.store.base import Store
from finetune_trainer.store.ledger import Ledger, StoredCheckpoint, manifest_key

OPTIMIZER_FILE = re.compile(r"optimizer\.(pt|bin)|optimizer_\d+/.*|global_step\d+/.*")
"""What training needs and inference does not (DeepSpeed's folder repeats weights that lie beside it in the plain format);
by far the largest part beside full weights."""


@dataclass(frozen=True)
class RotationPlan:
    """What to do, oldest first."""

    strip: tuple[CheckpointRef, ...] = ()
    """Drop the optimizer state: weights stay, no longer resumable."""
    delete: tuple[CheckpointRef, ...] = ()


def plan_rotation(
    checkpoints: Sequence[tuple[CheckpointRef, bool]], *, keep_last: int, keep_last_remote: int, protected: Collection[CheckpointRef]
) -> RotationPlan:
    """Decide for checkpoints given oldest first, each with whether it is resumable.

    The newest ``keep_last`` stay resumable, the newest ``keep_last_remote`` stay at all; the newest one and the protected ones (best,
    parent, last pause) are never touched.
    """
    newest_first = list(reversed(checkpoints))
    strip, delete = [], []
    for position, (ref, resumable) in enumerate(newest_first):
        if position == 0 or ref in protected:
            continue
        if position >= keep_last_remote:
            delete.append(ref)
        elif position >= keep_last and resumable:
            strip.append(ref)
    return RotationPlan(tuple(reversed(strip)), tuple(reversed(delete)))


def plan_local_rotation(steps: Iterable[int], *, keep_last: int, best: int | None) -> list[int]:
    """Steps whose local folders can go: all but the newest ``keep_last`` and the best (AC-28)."""
    ordered = sorted(steps)
    return [step for step in ordered[: max(len(ordered) - keep_last, 0)] if step != best]


def apply_rotation(store: Store, ledger: Ledger, plan: RotationPlan) -> None:
    """Carry out a plan. Safe to interrupt and repeat."""
    for ref in plan.strip:
        checkpoint = ledger.find(ref)
        if checkpoint is not None:
            _strip(store, checkpoint)
    for ref in plan.delete:
        checkpoint = ledger.find(ref)
        if checkpoint is not None:
            store.delete([manifest_key(ref.attempt, ref.step)])
            store.delete(f"{checkpoint_prefix(ref.attempt, ref.step)}/{name}" for name in checkpoint.sizes)


def leftovers(ledger: Ledger, *, attempt: int, committed_step: int) -> list[str]:
    """Keys nothing refers to: folders of older attempts and of skipped saves without a manifest, optimizers of stripped checkpoints."""
    keys: list[str] = []
    for (owner, step), names in ledger.unfinished.items():
        if owner < attempt or (owner == attempt and step < committed_step):
            keys += names
    for checkpoint in ledger.checkpoints:
        if not checkpoint.manifest.resumable:
            prefix = checkpoint_prefix(checkpoint.attempt, checkpoint.step)
            keys += [f"{prefix}/{name}" for name in checkpoint.sizes if OPTIMIZER_FILE.fullmatch(name)]
    return keys


def _strip(store: Store, checkpoint: StoredCheckpoint) -> None:
    """Say first that the checkpoint is not resumable and lists no optimizer, then remove the files."""
    manifest = checkpoint.manifest
    kept = [file for file in manifest.files if not OPTIMIZER_FILE.fullmatch(file.path)]
    dropped = [file.path for file in manifest.files if OPTIMIZER_FILE.fullmatch(file.path)]
    rewritten = manifest.model_copy(update={"resumable": False, "files": kept})
    store.put(manifest_key(checkpoint.attempt, checkpoint.step), rewritten.to_json().encode())
    prefix = checkpoint_prefix(checkpoint.attempt, checkpoint.step)
    store.delete(f"{prefix}/{name}" for name in dropped)

"""``inspect``: what the store holds of a job, verified; the operator's eyes when reports are missing, and a user's."""

from __future__ import annotations

import hashlib
from typing import Any

from finetune_api.contract.run_config import RunConfig
from finetune_api.contract.store import FINAL_PREFIX, MANIFEST, CheckpointRef, checkpoint_prefix
from finetune_trainer.errors import TrainerError
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import ObjectNotFoundError
from finetune_trainer.store.heartbeat import newest_heartbeat
from finetune_trainer.store.ledger import Ledger, StoredCheckpoint, read_ledger
from finetune_trainer.store.resume import lineage, plan_resume
from finetune_trainer.store.segments import read_in_order
from finetune_trainer.supervisor.environment import PodEnvironment, job_store
from finetune_trainer.supervisor.past import usage_so_far
from finetune_trainer.verbs.answer import Answer, run_verb

LISTED = 8
"""Newest checkpoints and attempts in the answer; the termination message is 4 KB."""


def run_inspect(environment: PodEnvironment, *, deep: bool) -> int:
    """Look and answer; returns the exit code."""
    return run_verb(environment, lambda config: look(config, job_store(config, environment), deep=deep))


def look(config: RunConfig, store: Store, *, deep: bool) -> Answer:
    """List attempts and checkpoints; name the checkpoint training would go on from.

    Names and sizes are checked for all checkpoints, digests only with ``deep`` and for the one to resume from.
    """
    ledger = read_ledger(store)
    damaged: dict[tuple[int, int], str] = {}
    newest = next(lineage(ledger), None)
    while deep and newest is not None and newest.uri is None:
        problem = _damaged_file(store, ledger.find(newest))
        if problem is None:
            break
        damaged[newest.attempt, newest.step] = problem
        newest = next((ref for ref in lineage(ledger) if (ref.attempt, ref.step) not in damaged), None)
    heartbeat = newest_heartbeat(store, ledger.attempts)
    wish, problem = _wish(ledger, config)
    has_final = _exists(store, f"{FINAL_PREFIX}/{MANIFEST}")
    result: dict[str, object] = {
        "attempts": len(ledger.attempts),
        "checkpoints": [_describe(checkpoint, damaged) for checkpoint in reversed(ledger.checkpoints[-LISTED:])],
        "checkpointCount": len(ledger.checkpoints),
        "bytes": sum(sum(checkpoint.sizes.values()) for checkpoint in ledger.checkpoints),
        "unfinished": [checkpoint_prefix(*place) for place in list(ledger.unfinished)[-LISTED:]],
        "final": has_final,
        "resume": _ref(newest),
        "resumeFrom": wish,
    }
    if problem:
        result["resumeFromProblem"] = problem
    return Answer(
        _sentence(ledger, newest, has_final=has_final),
        result,
        attempt=ledger.newest_attempt or None,
        step=(heartbeat.step or None) if heartbeat else None,
        usage=usage_so_far(ledger, heartbeat) if ledger.attempts else None,
        checkpoint=newest,
        final_uri=store.url(FINAL_PREFIX) if has_final else None,
    )


def _sentence(ledger: Ledger, newest: CheckpointRef | None, *, has_final: bool) -> str:
    end = "the final result is there" if has_final else "no final result yet"
    resume = f"training would go on from a{newest.attempt}/checkpoint-{newest.step}" if newest else "there is nothing to go on from"
    return f"{len(ledger.attempts)} attempts, {len(ledger.checkpoints)} checkpoints; {resume}; {end}"


def _describe(checkpoint: StoredCheckpoint, damaged: dict[tuple[int, int], str]) -> dict[str, object]:
    described: dict[str, Any] = {
        "attempt": checkpoint.attempt,
        "step": checkpoint.step,
        "bytes": checkpoint.manifest.size_bytes,
        "trigger": checkpoint.manifest.trigger,
        "resumable": checkpoint.manifest.resumable,
    }
    missing = [*checkpoint.damage[:3], *filter(None, [damaged.get((checkpoint.attempt, checkpoint.step))])]
    return {**described, "missing": missing} if missing else described


def _wish(ledger: Ledger, config: RunConfig) -> tuple[dict[str, object] | None, str]:
    """What ``checkpoint.resumeFrom`` comes to, and why not."""
    checkpoint = config.spec.checkpoint
    try:
        candidates = plan_resume(ledger, resume_from=checkpoint.resume_from, auto_resume=checkpoint.auto_resume)
    except TrainerError as error:
        return None, error.message
    return _ref(candidates[0] if candidates else None), ""


def _ref(ref: CheckpointRef | None) -> dict[str, object] | None:
    return ref.model_dump(by_alias=True, exclude_none=True) if ref else None


def _damaged_file(store: Store, checkpoint: StoredCheckpoint | None) -> str | None:
    """First file of a checkpoint whose digest is not the manifest's."""
    if checkpoint is None:
        return None
    prefix = checkpoint_prefix(checkpoint.attempt, checkpoint.step)
    files = checkpoint.manifest.files
    return next((file.path for file in files if _digest(store, f"{prefix}/{file.path}", file.size) != file.sha256), None)


def _digest(store: Store, key: str, size: int) -> str:
    """Sha256 of an object, read without storing it."""
    digest = hashlib.sha256()
    for piece in read_in_order(size, lambda start, length: store.get_range(key, start, length)):
        digest.update(piece)
    return digest.hexdigest()


def _exists(store: Store, key: str) -> bool:
    try:
        store.get(key)
    except ObjectNotFoundError:
        return False
    return True

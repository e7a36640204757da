"""Which checkpoint an attempt starts from: pure, so that every history can be tested.

Attempts order time, not steps. An attempt's state is its own highest checkpoint, else the one it started from (its parent), and so on::

    attempt 1:  100 ── 500 ── 1000          (abandoned: attempt 2 was told resumeFrom: checkpoint-500)
    attempt 2:          └──── 600 ── 700    killed at 750
    attempt 3:  tries a2/700, a2/600, a1/500, a1/100, then scratch; never a1/1000
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import CheckpointRef
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.store.ledger import Ledger, StoredCheckpoint

SCRATCH = "none"
LATEST = "latest"


def has_new_wish(ledger: Ledger, resume_from: str | None) -> bool:
    """Whether ``checkpoint.resumeFrom`` asks for something the newest attempt was not told already: each wish is carried out once."""
    if resume_from in (None, LATEST):
        return False
    newest = ledger.attempts.get(ledger.newest_attempt)
    return newest is None or newest.resume_from != resume_from


def plan_resume(ledger: Ledger, *, resume_from: str | None, auto_resume: bool) -> tuple[CheckpointRef, ...]:
    """Checkpoints to try, best first; empty = from scratch.

    A wish for one checkpoint yields that one alone: it is used or the job is refused. Raises TrainerError (CheckpointIncomplete) when
    the wish names a step of this job without a complete checkpoint.
    """
    if has_new_wish(ledger, resume_from) or not auto_resume:
        return _wished(ledger, resume_from)
    return tuple(lineage(ledger))


def lineage(ledger: Ledger) -> Iterator[CheckpointRef]:
    """Resumable checkpoints along the newest attempt's own history, newest first."""
    attempt, limit = ledger.newest_attempt, None
    seen: set[int] = set()
    while attempt and attempt not in seen:
        seen.add(attempt)
        own = [found for found in ledger.checkpoints if found.attempt == attempt and (limit is None or found.step <= limit)]
        yield from (found.ref for found in reversed(own) if is_resumable(found))
        parent = _parent(ledger, attempt)
        if parent is None:
            return
        if parent.uri is not None:
            yield parent
            return
        attempt, limit = parent.attempt, parent.step


def is_resumable(checkpoint: StoredCheckpoint) -> bool:
    """Whether training can go on from it, as far as names and sizes tell."""
    return checkpoint.manifest.resumable and not checkpoint.damage


def check_global_batch(stored: int, *, batch_size: int, accumulation: int, world_size: int) -> None:
    """Refuse a resume that changes batchSize x gradAccumSteps x ranks: then a step is not the same position in the data."""
    asked = batch_size * accumulation * world_size
    if asked == stored:
        return
    fitting = [
        f"batchSize {batch}, gradAccumSteps {stored // (batch * world_size)}"
        for batch in range(1, 129)
        if stored % (batch * world_size) == 0
    ]
    ways = "; ".join(sorted(fitting, key=lambda text: abs(int(re.findall(r"\d+", text)[0]) - batch_size))[:3])
    remedy = f"with {world_size} ranks use {ways}" if ways else f"use a number of ranks that divides {stored}"
    raise configuration_error(
        f"training.batchSize {batch_size} x gradAccumSteps {accumulation} x {world_size} ranks = {asked}, but the checkpoint was trained "
        f"with a global batch of {stored}: {remedy}."
    )


def ranks_refusal(strategy: str, stored: int, asked: int) -> str:
    """Say why a checkpoint that fits one number of ranks alone is not resumed with another."""
    return (
        f"the checkpoint was written with distributed.strategy {strategy} by {stored} ranks, now there are {asked}: ZeRO's parts fit that "
        f"number alone. Set replicas x processes per replica (resources.processesPerReplica, else gpusPerReplica) back to {stored}; runs "
        "with fsdp or ddp may change it"
    )


def _wished(ledger: Ledger, resume_from: str | None) -> tuple[CheckpointRef, ...]:
    if resume_from in (None, SCRATCH):
        return ()
    if resume_from == LATEST:
        return tuple(lineage(ledger))
    named = re.fullmatch(r"checkpoint-([0-9]+)", resume_from)
    if named is None:
        step = re.search(r"checkpoint-([0-9]+)/?$", resume_from)
        return (CheckpointRef(attempt=0, step=int(step[1]) if step else 0, uri=resume_from.rstrip("/")),)
    return (_own_checkpoint(ledger, int(named[1])),)


def _own_checkpoint(ledger: Ledger, step: int) -> CheckpointRef:
    """Newest complete checkpoint of this job at a step."""
    found = [checkpoint for checkpoint in ledger.checkpoints if checkpoint.step == step]
    usable = [checkpoint for checkpoint in found if is_resumable(checkpoint)]
    if usable:
        return usable[-1].ref
    have = (
        ", ".join(
            sorted({f"checkpoint-{other.step}" for other in ledger.checkpoints if is_resumable(other)}, key=lambda name: int(name[11:]))
        )
        or "none"
    )
    if not found:
        raise _incomplete(f"checkpoint.resumeFrom: this job has no complete checkpoint-{step}; it has {have}.")
    if found[-1].damage:
        raise _incomplete(
            f"checkpoint.resumeFrom: checkpoint-{step} is incomplete, {found[-1].damage[0]} is missing or cut short; complete are {have}."
        )
    raise _incomplete(f"checkpoint.resumeFrom: checkpoint-{step} keeps its weights only (checkpoint.keepLast); resumable are {have}.")


def _incomplete(message: str) -> TrainerError:
    return TrainerError(FailureClass.CHECKPOINT_INCOMPLETE, message)


def _parent(ledger: Ledger, attempt: int) -> CheckpointRef | None:
    """Where an attempt started. Its manifests know better than its claim: verification may have fallen back after the claim."""
    own = [found.manifest for found in ledger.checkpoints if found.attempt == attempt]
    if own:
        return own[0].parent
    record = ledger.attempts.get(attempt)
    return record.parent if record else None

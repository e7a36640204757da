"""Brings a checkpoint of the store onto this pod's disk: the common files and those of its own ranks, each checked by digest."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from finetune_api.contract.store import MANIFEST, CheckpointRef, Manifest, StoredFile, checkpoint_prefix
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.strategies import FIXED_RANKS, Strategy, is_same_strategy
from finetune_trainer.errors import configuration_error
from finetune_trainer.protocol import ResumePoint
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.plain_checkpoint import PlainJob, check_plain_checkpoint
from finetune_trainer.sources.resolve import fetch_directory
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import DigestMismatchError, ObjectNotFoundError
from finetune_trainer.store.ledger import manifest_key
from finetune_trainer.store.resume import check_global_batch, ranks_refusal
from finetune_trainer.store.rotation import OPTIMIZER_FILE
from finetune_trainer.store.staging import rank_of, wanted_files
from finetune_trainer.store.transfer import download_files, hash_file


class RejectedError(Exception):
    """A checkpoint is no good; the one before may be."""


@dataclass(frozen=True)
class RestoreTarget:
    """Who resumes."""

    spec: FineTuneJobSpec
    world_size: int
    ranks: range
    """Ranks of this pod."""
    directory: Path
    """Where checkpoints are put."""
    strategy: Strategy | None = None
    """How it trains; None while that is not decided (``auto``)."""


def read_manifest(store: Store, ref: CheckpointRef) -> tuple[Manifest, str]:
    """Manifest of one of this job's checkpoints, and its digest. Raises RejectedError."""
    try:
        data = store.get(manifest_key(ref.attempt, ref.step))
        return Manifest.model_validate_json(data), hashlib.sha256(data).hexdigest()
    except (ObjectNotFoundError, ValidationError) as error:
        raise RejectedError(f"its manifest cannot be read ({type(error).__name__})") from error


def restore_own(store: Store, ref: CheckpointRef, manifest: Manifest, target: RestoreTarget) -> ResumePoint:
    """Fetch one of this job's checkpoints. Raises RejectedError, or TrainerError when another global batch or number of ranks is asked."""
    check_fits(manifest, target)
    names = {file.path: file for file in manifest.files}
    if manifest.world_size == target.world_size:
        _check_rng(names, target)
    directory = target.directory / f"a{ref.attempt}-checkpoint-{ref.step}"
    shutil.rmtree(directory, ignore_errors=True)
    files = [names[name] for name in wanted_files(names, target.ranks)]
    _download(store, checkpoint_prefix(ref.attempt, ref.step), files, directory)
    return ResumePoint(directory=directory, manifest=manifest)


def check_fits(manifest: Manifest, target: RestoreTarget) -> None:
    """Refuse another global batch, or another number of ranks where the strategy's files fit one alone.

    Raises :class:`TrainerError` (ConfigurationError).
    """
    training = target.spec.training
    check_global_batch(
        manifest.global_batch, batch_size=training.batch_size, accumulation=training.grad_accum_steps, world_size=target.world_size
    )
    if manifest.strategy in FIXED_RANKS and manifest.world_size != target.world_size:
        raise configuration_error(f"{ranks_refusal(manifest.strategy, manifest.world_size, target.world_size)}.")


def restore_foreign(source: Source, context: SourceContext, target: RestoreTarget) -> ResumePoint:
    """Fetch a checkpoint from elsewhere: with our manifest checked by digest, else as a plain Trainer directory by completeness (AC-08).

    Raises RejectedError for one that is not whole or was written for other weights or another strategy, TrainerError as
    :func:`check_fits` does.
    """
    directory = fetch_directory(source, context)
    if not (directory / MANIFEST).is_file():
        check_plain_checkpoint(source, directory, job=PlainJob(target.spec.adapter.type, target.world_size, target.strategy))
        return ResumePoint(directory=directory)
    try:
        manifest = Manifest.model_validate_json((directory / MANIFEST).read_bytes())
    except ValidationError as error:
        raise RejectedError("its manifest.json cannot be read") from error
    _check_use(manifest, target)
    check_fits(manifest, target)
    names = {file.path: file for file in manifest.files}
    if manifest.world_size == target.world_size:
        _check_rng(names, target)
    for file in manifest.files:
        path = directory / file.path
        if not path.is_file():
            raise RejectedError(f"{file.path} is missing")
        if (rank_of(file.path) is None or rank_of(file.path) in target.ranks) and hash_file(path) != file.sha256:
            raise RejectedError(f"{file.path} is damaged")
    return ResumePoint(directory=directory, manifest=manifest)


def fetch_best(store: Store, ref: CheckpointRef, directory: Path) -> Path | None:
    """Weights of the best checkpoint so far, without optimizer and rank files; None when it is no longer complete."""
    target = directory / f"best-a{ref.attempt}-checkpoint-{ref.step}"
    shutil.rmtree(target, ignore_errors=True)
    try:
        manifest, _ = read_manifest(store, ref)
        files = [file for file in manifest.files if rank_of(file.path) is None and not OPTIMIZER_FILE.fullmatch(file.path)]
        _download(store, checkpoint_prefix(ref.attempt, ref.step), files, target)
    except RejectedError:
        return None
    return target


def _download(store: Store, prefix: str, files: list[StoredFile], directory: Path) -> None:
    try:
        download_files(store, prefix, files, directory)
    except (DigestMismatchError, ObjectNotFoundError) as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise RejectedError(str(error)) from error


def _check_use(manifest: Manifest, target: RestoreTarget) -> None:
    """Another job's checkpoint must hold what this one goes on with."""
    kind, strategy = target.spec.adapter.type, target.strategy
    if not manifest.resumable:
        raise RejectedError("it keeps its weights only (checkpoint.keepLast of its job), and its optimizer's state is gone")
    if manifest.kind != kind:
        raise RejectedError(f"it is a {manifest.kind} checkpoint, adapter.type is {kind}")
    if strategy is not None and not is_same_strategy(manifest.strategy, strategy):
        raise RejectedError(
            f"it was written with distributed.strategy {manifest.strategy}, and this job's is {strategy}, which cannot read it: "
            f"set distributed.strategy to {manifest.strategy}"
        )


def _check_rng(names: dict[str, StoredFile], target: RestoreTarget) -> None:
    """Every rank needs its own random state: without it the resumed run would silently be another one."""
    for rank in target.ranks:
        name = "rng_state.pth" if target.world_size == 1 else f"rng_state_{rank}.pth"
        if name not in names:
            raise RejectedError(f"{name} is missing")

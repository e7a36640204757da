"""Resuming: what is taken from a checkpoint, what from the spec, and what must be there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from transformers import set_seed

from finetune_api.contract.failures import FailureClass
from finetune_api.strategies import FIXED_RANKS, Strategy
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.protocol import WorkerPlan
from finetune_trainer.store.resume import ranks_refusal
from finetune_trainer.worker.checkpoint import CommonState, read_state, schedule_fields
from finetune_trainer.worker.ledger import Ledger
from finetune_trainer.worker.session import Progress

if TYPE_CHECKING:
    from finetune_trainer.worker.rank import Rank
    from finetune_trainer.worker.session import Session

REQUIRED: Final = ("scheduler.pt", "trainer_state.json")
WEIGHTS: Final[Mapping[str, tuple[str, ...]]] = {
    "lora": ("adapter_model.safetensors", "adapter_model.bin"),
    "full": ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
}
RESIZE_STREAM: Final = 4
"""Second word of the seed of ranks that resume with another number of ranks."""


def restore_progress(plan: WorkerPlan) -> Progress:
    """Read the run's state beside weights and optimizer; what the store's manifest says wins over the files.

    A plain Trainer directory from elsewhere has neither: the run starts its records there.
    """
    if plan.resume is None:
        return Progress()
    state, manifest = read_state(plan.resume.directory), plan.resume.manifest
    progress = Progress()
    if state is not None:
        progress = Progress(
            window=list(state.window),
            tokens_seen=state.tokens_seen,
            ledger=Ledger(state.best, state.early_stopping),
            evaluation_due=state.evaluation_due,
            metrics=dict(state.metrics),
            trend=state.trend,
        )
    if manifest is not None:
        progress.ledger = Ledger(manifest.best, manifest.early_stopping)
        progress.evaluation_due = manifest.evaluation_due
    return progress


def check_complete(directory: Path, kind: Literal["lora", "full"], optimizer_files: Sequence[str]) -> None:
    """Refuse a checkpoint that lacks a file this worker loads.

    Raises :class:`TrainerError` (CheckpointIncomplete) that names the file.
    """
    missing = [name for name in (*optimizer_files, *REQUIRED) if not (directory / name).is_file()]
    weights = WEIGHTS[kind]
    if not any((directory / name).is_file() for name in weights):
        missing.append(weights[0])
    if missing:
        raise TrainerError(FailureClass.CHECKPOINT_INCOMPLETE, f"{directory.name} lacks {', '.join(missing)}")


def check_global_batch(plan: WorkerPlan, global_batch: int, rank: Rank, batch_size: int) -> None:
    """Refuse another global batch than the run had: the step would no longer be the position in the data.

    Raises :class:`TrainerError` (ConfigurationError) that names values which fit.
    """
    wanted = plan.pinned.global_batch
    if wanted is None and plan.resume is not None and plan.resume.manifest is not None:
        wanted = plan.resume.manifest.global_batch
    if wanted is None or wanted == global_batch:
        return
    fitting = wanted / (rank.world_size * batch_size)
    advice = (
        f"set training.gradAccumSteps to {fitting:.0f}"
        if fitting >= 1 and fitting.is_integer()
        else f"choose training.batchSize and training.gradAccumSteps whose product with {rank.world_size} ranks is {wanted}"
    )
    raise configuration_error(
        f"the run was begun with {wanted} rows per step (batchSize x gradAccumSteps x ranks), now it would be {global_batch}: {advice}"
    )


def check_ranks(plan: WorkerPlan, strategy: Strategy, rank: Rank) -> None:
    """Refuse another number of ranks than the checkpoint's where the strategy's files fit that number alone.

    Raises :class:`TrainerError` (ConfigurationError) that names the number.
    """
    manifest = plan.resume.manifest if plan.resume is not None else None
    if manifest is not None and strategy in FIXED_RANKS and manifest.world_size != rank.world_size:
        raise configuration_error(ranks_refusal(strategy, manifest.world_size, rank.world_size))


def changed_schedule(session: Session) -> dict[str, str]:
    """Fields edited since the checkpoint was written: path -> ``old -> new``."""
    state = read_state(session.plan.resume.directory) if session.plan.resume is not None else None
    if state is None:
        return {}
    return {
        path: f"{state.schedule[path]} -> {value}"
        for path, value in schedule_fields(session).items()
        if state.schedule.get(path, value) != value
    }


def has_random_state(session: Session, directory: Path, step: int) -> bool:
    """Whether this rank's random state can be loaded; with another number of ranks it is drawn from (seed, rank, step) instead.

    Raises :class:`TrainerError` (CheckpointIncomplete) when the file is missing.
    """
    rank = session.rank
    name = "rng_state.pth" if rank.world_size == 1 else f"rng_state_{rank.rank}.pth"
    saved_ranks = _saved_world_size(session, directory)
    if saved_ranks != rank.world_size:
        seeds = np.random.SeedSequence([session.spec.training.seed, RESIZE_STREAM, rank.rank, step])
        set_seed(int(seeds.generate_state(1)[0]))
        session.warn(
            "RanksChanged",
            f"resumed on {rank.world_size} ranks from a checkpoint of {saved_ranks}: dropout is drawn anew from step {step} on",
        )
        return False
    if not (directory / name).is_file():
        raise TrainerError(FailureClass.CHECKPOINT_INCOMPLETE, f"{directory.name} lacks {name}, the random state of rank {rank.rank}")
    return True


def ranks_changed(session: Session, directory: Path) -> bool:
    """Whether a checkpoint was written by another number of ranks."""
    return _saved_world_size(session, directory) != session.rank.world_size


def _saved_world_size(session: Session, directory: Path) -> int:
    resume = session.plan.resume
    if resume is not None and resume.manifest is not None:
        return resume.manifest.world_size
    state: CommonState | None = read_state(directory)
    return state.world_size if state is not None else max(len(list(directory.glob("rng_state_*.pth"))), 1)


def hyperparameters(optimizer: Any) -> list[dict[str, Any]]:
    """Return what the spec says for each group of parameters: rate, decay and the optimizer's own constants."""
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def restore_schedule(
    optimizer: Any, scheduler: torch.optim.lr_scheduler.LambdaLR, wanted: Sequence[dict[str, Any]], directory: Path
) -> None:
    """Load the position in the schedule; learning rate, decay and the schedule's shape stay those of the spec (``wanted``).

    All schedules give the rate as a function of the step, so an unedited run gets exactly the rates it would have had.
    """
    for group, own in zip(optimizer.param_groups, wanted, strict=True):
        group.update(own)
    position = torch.load(directory / "scheduler.pt", weights_only=True)
    rates = [base * shape(position["last_epoch"]) for base, shape in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler.load_state_dict({**position, "base_lrs": scheduler.base_lrs, "_last_lr": rates})

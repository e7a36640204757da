"""Saving: plain Trainer files on local disk, our own state beside them, then a barrier, then the supervisor takes over.

Where rank 0 has weights and optimizer whole, their files are written from copies while the training goes on, and the barrier comes after
the step by which they are there.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from safetensors import SafetensorError

from finetune_api.contract.base import ContractModel
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import BestCheckpoint, EarlyStoppingState, Trigger
from finetune_trainer.errors import TrainerError
from finetune_trainer.protocol import Saved
from finetune_trainer.worker.orders import Bit
from finetune_trainer.worker.trend import Trend

if TYPE_CHECKING:
    from finetune_trainer.worker.behind import Writing
    from finetune_trainer.worker.session import Session
    from finetune_trainer.worker.trainer import FineTuneTrainer

STATE_FILE: Final = "finetune_state.json"
FILE_MODE: Final = 0o644
"""safetensors writes 0600; the supervisor and people reading the volume may be other users."""
MARGIN_BYTES: Final = 64 * 2**20
"""Local space that must stay free beside a checkpoint."""
TORCH_WRITE_ERROR: Final = re.compile(r"PytorchStreamWriter|inline_container|iostream error|unexpected pos")
LAST: Final[frozenset[Trigger]] = frozenset({"pause", "stop", "signal", "final"})
"""Saves after which no step comes."""
BYTES_PER_PARAMETER: Final = 12
"""Upper bound for the first save: a float32 weight and two moments for each trained parameter. Later saves go by the one before."""


class CommonState(ContractModel):
    """``finetune_state.json``: what a resumed run needs beside the Trainer's own files; the same for all ranks."""

    step: int
    world_size: int
    global_batch: int
    total_steps: int
    schedule: dict[str, float | int | str]
    """Values of the fields that may be edited between attempts, as they were used."""
    window: list[float]
    tokens_seen: int
    best: BestCheckpoint | None = None
    early_stopping: EarlyStoppingState = EarlyStoppingState()
    evaluation_due: bool = False
    metrics: dict[str, float] = {}
    trend: Trend = Trend()


def schedule_fields(session: Session) -> dict[str, float | int | str]:
    """The fields a stopped job may edit, with the values in use."""
    training = session.spec.training
    return {
        "training.learningRate": training.learning_rate,
        "training.lrScheduler": training.lr_scheduler,
        "training.lrCosineCycles": training.lr_cosine_cycles,
        "training.epochs": training.epochs,
        "training.maxSteps": training.max_steps,
        "training.maxStepsMode": training.max_steps_mode,
        "training.weightDecay": training.weight_decay,
        "training.warmupRatio": training.warmup_ratio,
        "training.warmupSteps": training.warmup_steps,
        "training.maxGradNorm": training.max_grad_norm,
    }


def directory_of(session: Session, step: int) -> Path:
    """Local directory of the checkpoint of a step of this attempt."""
    return session.plan.output_dir / f"checkpoint-{step}"


def has_space(session: Session, trainer: FineTuneTrainer) -> bool:
    """Whether every rank has local space for one more checkpoint; if not, this save is skipped with a warning. Collective."""
    settle(session)
    count = session.sharing.parameter_count
    needed = session.last_save_bytes or BYTES_PER_PARAMETER * sum(count(p) for p in trainer.model.parameters() if p.requires_grad)
    free = shutil.disk_usage(session.plan.output_dir).free
    short = Bit.NO_SPACE if free < needed + MARGIN_BYTES else Bit.NONE
    if Bit.NO_SPACE not in session.group.agree(short):
        session.warn("CheckpointSkipped", "")
        return True
    session.warn(
        "CheckpointSkipped",
        f"no local space for the checkpoint of step {trainer.state.global_step}: {needed / 1e9:.2f} GB needed, {free / 1e9:.2f} GB free; "
        "lower checkpoint.keepLast or give the pods more disk",
    )
    return False


@dataclass(frozen=True)
class Save:
    """A checkpoint whose files are being written."""

    directory: Path
    message: Saved
    """What the supervisor is told when all of it is there."""
    started: float
    waited: float
    """Seconds the training has waited for it so far."""
    writing: Writing | None
    """Rank 0's large files, where the training does not wait for them."""
    failure: Exception | None
    """Why this rank could not write its part."""


def save(session: Session, trainer: FineTuneTrainer, write_trainer_files: Callable[[], Writing | None]) -> None:
    """Save the current step on all ranks. Collective.

    Where rank 0 writes behind the training, :func:`hand_over` ends the save after a later step; else, and where the training ends here, it
    is complete, and this pod's supervisor has it, when this returns.

    Raises :class:`TrainerError`: LossDiverged when weights are not finite (nothing is written then), PeerLost when a peer is gone.
    """
    settle(session)
    started = time.monotonic()
    step = trainer.state.global_step
    directory = directory_of(session, step)
    refuse_broken_weights(session, trainer, step)
    writing = None
    failure = None
    try:
        writing = write_trainer_files()
        trainer.save_rank_state(directory)
        if session.rank.is_first:
            (directory / STATE_FILE).write_text(_state(session, step).to_json())
        if writing is not None:
            writing.begin()
    except (OSError, SafetensorError, RuntimeError) as error:
        failure = _disk_error(error)
    waited = session.stopwatch.lap("checkpointing")
    session.saving = Save(directory, _saved(session, trainer, directory), started, waited, writing, failure)
    if trainer.save_trigger in LAST or not session.sharing.gathers_nothing:
        settle(session)


def progress_bit(session: Session) -> Bit:
    """Tell the group, with the bits of a step, that rank 0 has written its files: only it has any that the training does not wait for."""
    save = session.saving
    if save is None or not session.rank.is_first:
        return Bit.NONE
    return Bit.WRITTEN if save.writing is None or save.writing.has_ended else Bit.NONE


def settle(session: Session) -> None:
    """Wait until the checkpoint under way, if any, is written on all ranks and this pod's supervisor has put it aside. Collective."""
    hand_over(session)
    session.staging.wait()
    session.stopwatch.lap("checkpointing")


def hand_over(session: Session) -> None:
    """Wait until the checkpoint under way, if any, is written on all ranks, and tell this pod's supervisor. Collective."""
    save, session.saving = session.saving, None
    if save is None:
        return
    step, failure = save.message.step, save.failure
    try:
        if save.writing is not None:
            save.writing.wait()
        _open_to_readers(save.directory)
    except (OSError, SafetensorError, RuntimeError) as error:
        failure = failure or _disk_error(error)
    if Bit.FAILED in session.group.agree(Bit.FAILED if failure is not None else Bit.NONE):
        shutil.rmtree(save.directory, ignore_errors=True)
        session.warn("CheckpointSkipped", f"the checkpoint of step {step} could not be written: {failure or 'a peer failed'}")
        return
    session.last_save_bytes = sum(file.stat().st_size for file in save.directory.rglob("*"))
    session.last_save = time.monotonic()
    waited = save.waited + session.stopwatch.lap("checkpointing")
    if session.rank.is_first_of_pod:
        session.staging.expect(step)
        session.link.send(save.message.model_copy(update={"seconds": time.monotonic() - save.started, "waited": waited}))


def refuse_broken_weights(session: Session, trainer: FineTuneTrainer, step: int) -> None:
    """Raise LossDiverged on all ranks when a trained weight is NaN or infinite: such a checkpoint must never replace a good one."""
    norm = torch.nn.utils.get_total_norm(list(session.sharing.local_weights(trainer.model)))
    broken = Bit.NONE if bool(torch.isfinite(norm)) else Bit.FAILED
    if Bit.FAILED in session.group.agree(broken):
        raise TrainerError(FailureClass.LOSS_DIVERGED, f"weights are no longer finite at step {step}", step=step)


def read_state(directory: Path) -> CommonState | None:
    """Read our state from a checkpoint; None for a plain Trainer directory."""
    file = directory / STATE_FILE
    return CommonState.model_validate_json(file.read_text()) if file.is_file() else None


def _state(session: Session, step: int) -> CommonState:
    progress = session.progress
    return CommonState(
        step=step,
        world_size=session.rank.world_size,
        global_batch=session.schedule.global_batch,
        total_steps=session.schedule.total_steps,
        schedule=schedule_fields(session),
        window=progress.window,
        tokens_seen=progress.tokens_seen,
        best=progress.ledger.best,
        early_stopping=progress.ledger.early_stopping,
        evaluation_due=progress.evaluation_due,
        metrics=progress.metrics,
        trend=progress.trend,
    )


def _disk_error(error: OSError | SafetensorError | RuntimeError) -> Exception:
    """Return an error of writing; torch and safetensors have their own for a disk that is full, any other RuntimeError is raised again."""
    if isinstance(error, RuntimeError) and not TORCH_WRITE_ERROR.search(str(error)):
        raise error
    return error


def _saved(session: Session, trainer: FineTuneTrainer, directory: Path) -> Saved:
    progress, step = session.progress, trainer.state.global_step
    best = progress.ledger.best
    return Saved(
        step=step,
        total_steps=session.schedule.total_steps,
        epoch=session.schedule.epoch(step),
        directory=directory,
        trigger=trainer.save_trigger,
        is_best=best is not None and best.step == step,
        best=best,
        early_stopping=progress.ledger.early_stopping,
        evaluation_due=progress.evaluation_due,
        metrics=progress.metrics,
        steady_until=progress.trend.steady_until,
        usage=session.stopwatch.usage,
        seconds=0.0,
    )


def _open_to_readers(directory: Path) -> None:
    for file in directory.rglob("*"):
        if file.is_file() and file.stat().st_mode & 0o777 != FILE_MODE:
            file.chmod(FILE_MODE)

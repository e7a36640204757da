"""The result: the final adapter or model in a directory of its own, loadable without anything of ours."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from finetune_trainer.protocol import FinalSaved
from finetune_trainer.worker.checkpoint import FILE_MODE, STATE_FILE, directory_of
from finetune_trainer.worker.halving import halve_adapter
from finetune_trainer.worker.orders import Bit

if TYPE_CHECKING:
    from finetune_trainer.worker.session import Session
    from finetune_trainer.worker.trainer import FineTuneTrainer

TRAINING_ONLY: Final = frozenset(
    {
        *("optimizer.pt", "scheduler.pt", "scaler.pt", "trainer_state.json", "training_args.bin", STATE_FILE),
        *("latest", "zero_to_fp32.py", "zero_to_torch.py"),
    }
)
"""Files of a checkpoint that only resuming needs, beside random states."""


def save_final(session: Session, trainer: FineTuneTrainer) -> None:
    """Write the final weights (rank 0), report them, and let no rank leave before. Collective."""
    session.heartbeat.beat("Exporting", 0)
    directory = session.plan.output_dir / "final"
    best = _best_weights(session, trainer) if session.rank.is_first else None
    # Only rank 0 knows what it has on disk, but all of them may have to give it their shards.
    wishes = Bit.SAVE if session.rank.is_first and best is None else Bit.NONE
    gathers = Bit.SAVE in session.group.agree(wishes)
    if session.rank.is_first:
        shutil.rmtree(directory, ignore_errors=True)
    if gathers:
        trainer.save_model(str(directory))
    if session.rank.is_first:
        source = _finish(session, trainer, best, directory)
        halve_adapter(trainer.model, directory)
        session.link.send(
            FinalSaved(
                step=_final_step(session, trainer, source),
                directory=directory,
                kind=session.spec.adapter.type,
                source=source,
                early_stopped=session.early_stopped,
                metrics=session.progress.metrics,
                usage=session.stopwatch.usage,
            )
        )
    session.group.agree()


def best_directory(session: Session) -> Path | None:
    """Local directory with the weights of the best step: this attempt's save, the checkpoint it started from, or the fetched copy."""
    best = session.progress.ledger.best
    if best is None:
        return None
    candidates = [directory_of(session, best.step)]
    resume = session.plan.resume
    if resume is not None and resume.manifest is not None and (best.attempt, best.step) == (resume.manifest.attempt, resume.manifest.step):
        candidates.append(resume.directory)
    if session.plan.best_dir is not None:
        candidates.append(session.plan.best_dir)
    return next((directory for directory in candidates if directory.is_dir()), None)


def _best_weights(session: Session, trainer: FineTuneTrainer) -> Path | None:
    """Return where the result's weights lie already; None when they are the model's present ones."""
    best = session.progress.ledger.best
    if not session.keeps_best or best is None or best.step == trainer.state.global_step:
        return None
    directory = best_directory(session)
    if directory is None:
        session.warn("BestUnavailable", f"the checkpoint of the best step {best.step} is not there; the last weights are the result")
    return directory


def _finish(session: Session, trainer: FineTuneTrainer, best_weights: Path | None, directory: Path) -> Literal["best", "last"]:
    """Complete the result's directory, and say what it holds."""
    if best_weights is not None:
        _copy_weights(best_weights, directory)
        return "best"
    (directory / "training_args.bin").unlink(missing_ok=True)
    for file in directory.iterdir():
        file.chmod(FILE_MODE)
    best = session.progress.ledger.best
    return "best" if session.keeps_best and best is not None and best.step == trainer.state.global_step else "last"


def _copy_weights(source: Path, directory: Path) -> None:
    directory.mkdir(parents=True)
    for file in source.iterdir():
        if file.is_file() and file.name not in TRAINING_ONLY and not file.name.startswith(("rng_state", "finetune_", "part-", "manifest")):
            shutil.copyfile(file, directory / file.name)
            (directory / file.name).chmod(FILE_MODE)


def _final_step(session: Session, trainer: FineTuneTrainer, source: Literal["best", "last"]) -> int:
    best = session.progress.ledger.best
    return best.step if source == "best" and best is not None else int(trainer.state.global_step)

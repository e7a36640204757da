"""Uploads of this pod: takes finished saves over from the workers and makes checkpoints of them, whatever becomes of the workers."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from finetune_api.contract import metrics as names
from finetune_api.contract.store import CheckpointRef, Manifest, StoredFile
from finetune_trainer.errors import TrainerError
from finetune_trainer.protocol import Saved
from finetune_trainer.store.base import Store
from finetune_trainer.store.checkpoints import RunFacts, Save, SupersededError, commit, read_parts, upload_part
from finetune_trainer.store.ledger import Ledger, read_ledger
from finetune_trainer.store.resume import lineage
from finetune_trainer.store.rotation import apply_rotation, leftovers, plan_local_rotation, plan_rotation
from finetune_trainer.store.slots import UploadQueue
from finetune_trainer.store.staging import owned_files, stage
from finetune_trainer.supervisor.board import Board
from finetune_trainer.supervisor.events import CheckpointCommitted, Event, Superseded, UploadFailed

logger = logging.getLogger(__name__)
CALL_PATIENCE_SECONDS = 10.0
"""How long one call to the store is retried before the outage is said and the whole upload tried again."""
FIRST_RETRY_SECONDS = 1.0
LONGEST_RETRY_SECONDS = 30.0
PART_POLL_SECONDS = 0.5
LAST_PARTS_SECONDS = 30.0
FAILING_CONDITION = "CheckpointUploadFailing"
SKIPPED_CONDITION = "CheckpointSkipped"


class PartsMissingError(Exception):
    """Another pod was lost before its part of the checkpoint was up."""

    def __init__(self, step: int) -> None:
        super().__init__(f"a lost pod's part of checkpoint-{step} is missing")


@dataclass(frozen=True)
class UploadSettings:
    """Where saves come from and how many stay."""

    staging_dir: Path
    output_dir: Path
    ranks: range
    """Ranks of this pod."""
    keep_last: int
    keep_last_remote: int
    keeps_steady: bool = False
    """Keep what a loss that rises would be gone back to."""


@dataclass(frozen=True)
class UploadHooks:
    """What an uploader asks of and tells the rest."""

    emit: Callable[[Event], None]
    attachments: Callable[[], Mapping[str, bytes]]
    """Small objects (metrics, logs) that go up with each checkpoint."""
    on_skipped: Callable[[int], None]
    """A waiting save was replaced."""
    on_begin: Callable[[int], None]
    """The upload of a step's checkpoint begins; runs in the uploader's thread."""


class Uploader:
    """One thread that uploads; others hand saves to it."""

    def __init__(
        self,
        store: Store,
        facts: RunFacts,
        settings: UploadSettings,
        board: Board,
        hooks: UploadHooks,
    ) -> None:
        self._store = store.with_patience(CALL_PATIENCE_SECONDS)
        self._facts, self._settings, self._board, self._hooks = facts, settings, board, hooks
        self._abandoned = threading.Event()
        self._parts_until: float | None = None
        self._done: dict[str, StoredFile] = {}
        self._files_before = 0
        self._local_steps: list[int] = []
        self.queue = UploadQueue(may_replace=facts.pod == 0, on_replaced=self._replaced)
        self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)

    def start(self) -> None:
        """Begin to upload."""
        self._thread.start()

    def accept(self, saved: Saved) -> None:
        """Put a finished save aside and queue it; returns as soon as training may go on."""
        names_here = owned_files(saved.directory, pod=self._facts.pod, ranks=self._settings.ranks)
        staged = self._settings.staging_dir / f"checkpoint-{saved.step}"
        shutil.rmtree(staged, ignore_errors=True)
        try:
            stage(saved.directory, staged, names_here)
        except OSError as error:
            self._board.count(names.CHECKPOINTS_SKIPPED)
            self._board.warn(
                SKIPPED_CONDITION, f"The save at step {saved.step} is not uploaded: it cannot be put aside on local disk ({error})."
            )
            self._hooks.emit(UploadFailed(saved.step, error))
            return
        self._board.measure(names.CHECKPOINT_SAVE_DURATION, saved.seconds)
        self._board.update(save_seconds=saved.seconds)
        self._board.observe(names.CHECKPOINT_SAVE_SECONDS, saved.seconds)
        self._board.count(names.CHECKPOINT_STALL, saved.waited)
        self.queue.offer(save_of(saved, staged, names_here))
        self._rotate_locally(saved)

    def skip(self, steps: Collection[int]) -> None:
        """Follow pod 0, which skips these saves."""
        self.queue.drop(steps)

    def expect_no_more_parts(self) -> None:
        """A pod was lost: parts that are not there shortly never come."""
        self._parts_until = time.monotonic() + LAST_PARTS_SECONDS

    def abandon(self) -> None:
        """Stop trying; what is not committed now is lost."""
        self._abandoned.set()
        self.queue.close()

    @property
    def is_idle(self) -> bool:
        """Everything accepted is committed, skipped or given up."""
        return self.queue.is_idle

    @property
    def files_sent(self) -> int:
        """Files of checkpoints that are up, whether their checkpoint is complete or not."""
        return self._files_before + len(self._done)

    def _run(self) -> None:
        while (save := self.queue.take()) is not None:
            if self._abandoned.is_set():
                continue
            self._upload(save)
            shutil.rmtree(save.staged, ignore_errors=True)

    def _upload(self, save: Save) -> None:
        """Try until it is committed; outages are waited for, a newer attempt ends everything."""
        delay = FIRST_RETRY_SECONDS
        started = time.monotonic()
        self._files_before, self._done = self.files_sent, {}
        self._hooks.on_begin(save.step)
        while not self._abandoned.is_set():
            try:
                self._try_upload(save, started)
            except SupersededError as error:
                self._abandoned.set()
                self._hooks.emit(Superseded(str(error)))
            except TrainerError as error:
                self._board.count(names.UPLOAD_ERRORS)
                self._board.warn(FAILING_CONDITION, f"The checkpoint of step {save.step} is not in the store yet: {error.message}")
                logger.warning("upload of step %s failed, trying again in %.0f s: %s", save.step, delay, error.message)
                self._abandoned.wait(delay)
                delay = min(2 * delay, LONGEST_RETRY_SECONDS)
                continue
            except Exception as error:
                logger.exception("upload of step %s failed for good", save.step)
                self._hooks.emit(UploadFailed(save.step, error))
            return

    def _try_upload(self, save: Save, started: float) -> None:
        upload_part(self._store, save, self._facts, self._done)
        if self._facts.pod != 0:
            self._hooks.emit(CheckpointCommitted(save.step, None))
            self._attach()
            return
        while (parts := read_parts(self._store, save.step, self._facts)) is None:
            if self._parts_until is not None and time.monotonic() > self._parts_until:
                raise PartsMissingError(save.step)
            if self._abandoned.wait(PART_POLL_SECONDS):
                return
        # Before the manifest: a run that goes on from this checkpoint never trains its steps again, so that their rows must be there.
        self._attach()
        manifest = commit(self._store, save, parts, self._facts, now=datetime.now(UTC))
        self._board.measure(names.CHECKPOINT_UPLOAD_DURATION, time.monotonic() - started)
        self._board.update(upload_seconds=time.monotonic() - started)
        self._board.observe(names.CHECKPOINT_UPLOAD_SECONDS, time.monotonic() - started)
        self._board.warn(FAILING_CONDITION, "")
        self._hooks.emit(CheckpointCommitted(save.step, manifest))
        self._rotate_store(manifest)

    def _attach(self) -> None:
        """Upload metrics and logs with a checkpoint; a failure is made good at the next one."""
        try:
            for key, content in self._hooks.attachments().items():
                self._store.put(key, content)
        except TrainerError as error:
            logger.warning("metrics or logs not uploaded: %s", error.message)

    def _rotate_store(self, newest: Manifest) -> None:
        protected = {CheckpointRef(attempt=newest.best.attempt, step=newest.best.step)} if newest.best else set()
        if self._facts.parent is not None:
            protected.add(self._facts.parent)
        try:
            ledger = read_ledger(self._store)
            protected |= set(last_pause(ledger))
            if self._settings.keeps_steady:
                protected |= set(last_steady(ledger, newest))
            plan = plan_rotation(
                [(found.ref, found.manifest.resumable) for found in ledger.checkpoints],
                keep_last=self._settings.keep_last,
                keep_last_remote=self._settings.keep_last_remote,
                protected=protected,
            )
            apply_rotation(self._store, ledger, plan)
            self._store.delete(leftovers(ledger, attempt=self._facts.attempt, committed_step=newest.step))
        except TrainerError as error:
            logger.warning("old checkpoints stay for now: %s", error.message)

    def _rotate_locally(self, saved: Saved) -> None:
        self._local_steps.append(saved.step)
        best = saved.best.step if saved.best and saved.best.attempt == self._facts.attempt else None
        for step in plan_local_rotation(self._local_steps, keep_last=self._settings.keep_last, best=best):
            self._local_steps.remove(step)
            shutil.rmtree(self._settings.output_dir / f"checkpoint-{step}", ignore_errors=True)

    def _replaced(self, save: Save) -> None:
        self._board.count(names.CHECKPOINTS_SKIPPED)
        shutil.rmtree(save.staged, ignore_errors=True)
        logger.info("the save of step %s is skipped: a newer one is waiting and uploads are slower than saves", save.step)
        self._hooks.on_skipped(save.step)


def last_steady(ledger: Ledger, newest: Manifest) -> list[CheckpointRef]:
    """The newest checkpoint from before a rise of the loss, should there be one."""
    until = newest.steady_until
    return [ref for ref in lineage(ledger) if until is not None and ref.step <= until][:1]


def last_pause(ledger: Ledger) -> list[CheckpointRef]:
    """The checkpoint that the last pause made, if there was one: people look for it (R-05)."""
    return [found.ref for found in ledger.checkpoints if found.manifest.trigger == "pause"][-1:]


def save_of(saved: Saved, staged: Path, files: list[str]) -> Save:
    """The staged form of a worker's message."""
    return Save(
        step=saved.step,
        total_steps=saved.total_steps,
        epoch=saved.epoch,
        trigger=saved.trigger,
        staged=staged,
        names=tuple(files),
        is_best=saved.is_best,
        best=saved.best,
        early_stopping=saved.early_stopping,
        evaluation_due=saved.evaluation_due,
        metrics=saved.metrics,
        steady_until=saved.steady_until,
        usage=saved.usage,
    )

"""What a pod does once its workers have ended: finish, hold, or fail; nothing that could still be saved is left behind."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from finetune_api.contract.failures import EXIT_DONE, EXIT_PEER_LOST, EXIT_STOPPED, EXIT_UNKNOWN, FailureClass
from finetune_api.contract.progress import Finished, Stopped
from finetune_api.contract.store import FINAL_PREFIX, LINEAGE, MAX_REWINDS
from finetune_trainer.errors import TrainerError
from finetune_trainer.outputs.card import has_processor, model_card
from finetune_trainer.store.checkpoints import SupersededError
from finetune_trainer.store.ledger import read_ledger
from finetune_trainer.supervisor import events
from finetune_trainer.supervisor.final import lineage, upload_final, upload_tensorboard
from finetune_trainer.supervisor.heart import Heart
from finetune_trainer.supervisor.outcome import Outcome, count_oom_kills, outcome_of_workers
from finetune_trainer.supervisor.progress import Reporter
from finetune_trainer.supervisor.situation import EventQueue, run_in_background
from finetune_trainer.supervisor.stall import Stall
from finetune_trainer.supervisor.uploads import FAILING_CONDITION

if TYPE_CHECKING:
    from finetune_trainer.supervisor.session import Session

logger = logging.getLogger(__name__)
FINAL_PATIENCE_SECONDS = 600.0
"""How long the final upload waits for the store."""
DELIVERY_SECONDS = 60.0
"""How long a finished or unsaved pod waits until the operator knows."""
FAREWELL_SECONDS = 30.0
"""How long pod 0 waits until every pod knows of the final commit."""
LAST_UPLOADS_SECONDS = 600.0
"""How long a failing pod goes on with uploads that make headway."""
LAST_OUTAGE_SECONDS = 60.0
"""And how long with uploads that do not."""


class Ending:
    """Turns the end of the workers into the end of the pod."""

    def __init__(
        self, session: Session, queue: EventQueue, reporter: Reporter | None, heart: Heart, attachments: Callable[[], Mapping[str, bytes]]
    ) -> None:
        self._session, self._queue, self._reporter, self._heart = session, queue, reporter, heart
        self._attachments = attachments
        self._now = session.now

    def conclude(self) -> Outcome:
        """Outcome of the pod."""
        session = self._session
        if not session.crew.workers.are_done:
            return self._unsaved("the ranks did not stop in time")
        if self._now.stall is not None:
            return self._fail(self._stalled(self._now.stall))
        killed = count_oom_kills(session.inputs.environment.memory_events) > self._now.oom_kills_before
        outcome = outcome_of_workers(session.crew.ends(self._now.failures), was_oom_killed=killed)
        if outcome.exit_code == EXIT_DONE:
            return self._finish() if session.is_leader else self._follow_to_the_end()
        if outcome.exit_code == EXIT_STOPPED and not self._now.lost:
            return self._stop()
        return self._fail(outcome)

    def leave_unstarted(self, outcome: Outcome) -> Outcome:
        """A pause or stop before the workers ran: nothing to save, but the operator waits for the answer."""
        stop, step = self._now.stop, self._session.board.snapshot().step
        assert stop is not None
        assert stop.command is not None
        stopped = Stopped(command_id=stop.command.id, step=step, saved=False, checkpoint=self._session.board.newest_checkpoint())
        self._session.board.update(phase="Holding", stopped=stopped)
        self._hold(stop.at + (stop.command.timeout_seconds or self._session.inputs.spec.pause_policy.timeout_seconds))
        return outcome

    # --- done ---

    def _finish(self) -> Outcome:
        session, now = self._session, self._now
        if now.final is None:
            return self._fail(Outcome(EXIT_UNKNOWN, FailureClass.UNKNOWN, "rank 0 ended without a result."))
        session.board.update(phase="Uploading", counter=0)
        run_in_background("final", self._upload_final, self._final_failed)
        if not session.wait(lambda: bool(now.final_uri) and self._uploads_done(), deadline=session.stop_deadline):
            if not now.final_uri:
                return Outcome(EXIT_STOPPED, message="stopped while the final result was uploaded; the next attempt uploads it")
            logger.warning("the last checkpoint is not complete in the store, the final result is")
        final = now.final
        session.board.update(
            phase="Finished",
            finished=Finished(
                step=final.step, final_uri=now.final_uri, source=final.source, early_stopped=final.early_stopped, metrics=final.metrics
            ),
        )
        session.bond.finished()
        now.group_finished = True
        self._deliver(lambda reporter: reporter.finished_accepted.is_set(), DELIVERY_SECONDS)
        until = time.monotonic() + FAREWELL_SECONDS
        session.wait(session.bond.all_know, deadline=lambda: until)
        return Outcome(EXIT_DONE, message=f"training finished at step {final.step}")

    def _upload_final(self) -> None:
        session, final = self._session, self._now.final
        assert final is not None
        store = session.inputs.store.with_patience(FINAL_PATIENCE_SECONDS)
        started = self._now.started
        assert started is not None
        progress = session.board.snapshot()
        config, pinned = session.inputs.config, started.stored or started.known
        documents = {
            **self._attachments(),
            LINEAGE: lineage(config, final, progress, pinned, read_ledger(store).attempts.values()),
        }
        upload_tensorboard(store, started.plan.tensorboard_dir)
        sees = has_processor(path.name for path in final.directory.iterdir())
        upload_final(
            store,
            final,
            attempt=started.plan.attempt,
            attachments=documents,
            describe=lambda manifest: model_card(config, manifest, pinned, sees=sees),
        )
        self._queue.put(events.FinalCommitted(store.url(FINAL_PREFIX)))

    def _final_failed(self, error: Exception) -> None:
        self._queue.put(events.Superseded(str(error)) if isinstance(error, SupersededError) else events.BackgroundFailed(error))

    def _follow_to_the_end(self) -> Outcome:
        """A pod other than 0 leaves with 0 only when the final commit is known."""
        session, now = self._session, self._now
        session.board.update(phase="Uploading")
        session.wait(lambda: now.group_finished or bool(now.lost), deadline=session.stop_deadline)
        if now.group_finished:
            session.bond.finished()
            return Outcome(EXIT_DONE, message="training finished")
        if now.lost:
            return Outcome(EXIT_PEER_LOST, FailureClass.PEER_LOST, now.lost)
        return Outcome(EXIT_STOPPED, message="stopped before the final commit was known")

    # --- stopped ---

    def _stop(self) -> Outcome:
        session, now = self._session, self._now
        session.board.update(phase="Uploading")
        wanted = now.agreed.step if now.agreed and now.agreed.will_save else None
        if wanted is not None and not session.wait(lambda: self._is_up(wanted), deadline=session.stop_deadline):
            return self._unsaved("the store could not be reached in time")
        if wanted is not None and wanted in now.given_up:
            return self._unsaved(now.given_up[wanted])
        session.board.update(phase="Holding")
        command = now.stop.command if now.stop else None
        if command is None:
            return self._leave_stopped()
        assert now.stop is not None
        session.board.update(
            stopped=Stopped(
                command_id=command.id,
                step=self._stopped_at(),
                saved=wanted is not None,
                checkpoint=session.board.newest_checkpoint() if wanted is not None else None,
                seconds=self._latency(now.stop.at),
            )
        )
        self._hold(now.stop.at + (command.timeout_seconds or session.inputs.spec.pause_policy.timeout_seconds))
        return Outcome(EXIT_STOPPED, message=f"stopped as asked at step {self._stopped_at()}")

    def _leave_stopped(self) -> Outcome:
        """Stopped by a signal, or by another pod's order: pods other than 0 hold until they are told to go, pod 0 leaves last."""
        now, session = self._now, self._session
        message = f"stopped at step {self._stopped_at()}" if now.agreed else "stopped before the first step"
        trigger = now.stop.trigger if now.stop else now.saved_trigger
        if now.signalled_at is None and trigger in ("pause", "stop"):
            self._hold((now.stop.at if now.stop else now.agreed_at) + session.inputs.spec.pause_policy.timeout_seconds)
        return Outcome(EXIT_STOPPED, message=message)

    def _hold(self, until: float) -> None:
        """Keep the pod until the operator, who has read that the checkpoint is complete, takes it away."""
        now = self._now
        self._wake()
        least = time.monotonic() + DELIVERY_SECONDS
        self._session.wait(lambda: now.signalled_at is not None or now.released or bool(now.lost), deadline=lambda: max(until, least))

    def _unsaved(self, why: str) -> Outcome:
        """The stop is over without a checkpoint of its step: say what is lost."""
        session, now = self._session, self._now
        step = self._stopped_at()
        base = now.committed_step if now.committed_step is not None else (now.started.step if now.started else 0)
        lost = max(0, step - base)
        if now.stop is not None and now.stop.command is not None:
            stopped = Stopped(
                command_id=now.stop.command.id,
                step=step,
                saved=False,
                checkpoint=session.board.newest_checkpoint(),
                lost_steps=lost,
                seconds=self._latency(now.stop.at),
            )
            session.board.update(phase="Holding", stopped=stopped)
            self._deliver(lambda reporter: reporter.stopped_accepted.is_set(), DELIVERY_SECONDS if now.signalled_at is None else 2.0)
        return Outcome(EXIT_STOPPED, message=f"stopped at step {step} without a checkpoint of it ({why}): {lost} steps are lost")

    # --- failed ---

    def _stalled(self, stall: Stall) -> Outcome:
        """The ranks were killed because one of them hung: its last lines are its stacks."""
        ends = self._session.crew.ends(self._now.failures)
        lines = next((end.last_lines for end in ends if end.rank == stall.rank), ())
        return Outcome(EXIT_UNKNOWN, FailureClass.STALLED, f"{stall}.", stall.rank, "\n".join(lines))

    def _fail(self, outcome: Outcome) -> Outcome:
        session, now = self._session, self._now
        if outcome.failure_class is FailureClass.LOSS_DIVERGED:
            outcome = self._diverged(outcome)
        session.bond.failing(outcome.message or now.lost or "failed")
        if session.uploader is not None and not session.uploader.is_idle:
            logger.info("workers have ended, uploads go on")
            session.board.update(phase="Uploading")
            started = time.monotonic()
            session.wait(self._uploads_done, deadline=lambda: self._last_uploads_until(started))
        if now.lost and outcome.exit_code in (EXIT_STOPPED, EXIT_PEER_LOST):
            return Outcome(EXIT_PEER_LOST, FailureClass.PEER_LOST, now.lost, outcome.failed_rank, outcome.log_lines)
        return outcome

    def _diverged(self, outcome: Outcome) -> Outcome:
        """Leave the next attempt word of a divergence it is to go back from (pod 0), and say what follows."""
        session, started = self._session, self._now.started
        failure = next((failure for failure in self._now.failures.values() if failure.step is not None), None)
        if started is None or failure is None or failure.step is None or session.inputs.spec.retry.on_divergence != "rewind":
            return outcome
        if failure.step <= started.step:
            return replace(outcome, message=f"{outcome.message}; nothing was trained since the last checkpoint that could be left out")
        if len(started.plan.rewinds) >= MAX_REWINDS:
            return replace(outcome, message=f"{outcome.message}; the training went back {MAX_REWINDS} times before and does not again")
        if session.is_leader:
            self._heart.note(diverged_step=failure.step, steady_until=failure.steady_until)
            try:
                self._heart.beat()
            except TrainerError as error:
                return replace(
                    outcome, message=f"{outcome.message}; it cannot go back, the store does not take word of it: {error.message}"
                )
            self._now.will_rewind = True
        return replace(outcome, message=f"{outcome.message}; the next attempt goes back to the last good checkpoint")

    def _last_uploads_until(self, started: float) -> float:
        if self._now.signalled_at is not None:
            return self._session.stop_deadline() or started
        failing = FAILING_CONDITION in self._session.board.snapshot().warnings
        return started + (LAST_OUTAGE_SECONDS if failing else LAST_UPLOADS_SECONDS)

    # --- common ---

    def _uploads_done(self) -> bool:
        return self._session.uploader is None or self._session.uploader.is_idle

    def _is_up(self, step: int) -> bool:
        return (self._now.committed_step or -1) >= step or step in self._now.given_up

    def _stopped_at(self) -> int:
        if self._now.agreed is not None:
            return self._now.agreed.step
        return self._session.board.snapshot().step

    def _latency(self, asked_at: float) -> dict[str, float]:
        """Parts of the time a stop took, seconds."""
        now = self._now
        if now.agreed is None:
            return {}
        parts = {"agree": now.agreed_at - asked_at}
        if now.agreed.will_save:
            parts["save"] = max(0.0, now.saved_at - now.agreed_at)
            parts["upload"] = max(0.0, now.committed_at - now.saved_at)
        return {name: round(seconds, 3) for name, seconds in parts.items()}

    def _deliver(self, is_accepted: Callable[[Reporter], bool], seconds: float) -> None:
        """Wait until the operator stored what the board says now, or a while."""
        reporter = self._reporter
        if reporter is None:
            return
        reporter.wake()
        until = time.monotonic() + seconds
        self._session.wait(lambda: is_accepted(reporter) or self._now.signalled_at is not None, deadline=lambda: until)

    def _wake(self) -> None:
        if self._reporter is not None:
            self._reporter.wake()

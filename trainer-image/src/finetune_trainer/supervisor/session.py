"""One run of ``train`` in one pod, told in order: start, train, end. One thread acts; the others only put events into its queue."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from finetune_api.contract import metrics as names
from finetune_api.contract.failures import EXIT_DONE, EXIT_PEER_LOST, EXIT_STOPPED, FailureClass
from finetune_api.contract.progress import CheckpointReport, Command
from finetune_api.contract.store import Manifest, checkpoint_prefix
from finetune_trainer.errors import TrainerError
from finetune_trainer.protocol import Evaluated, Facts, Failed, FinalSaved, Phase, Saved, StepReport, StopAgreed, Used, Warned
from finetune_trainer.supervisor import events
from finetune_trainer.supervisor.attempt import check_pinned, freeze, merge_pinned
from finetune_trainer.supervisor.bonds import Bond
from finetune_trainer.supervisor.crew import Crew
from finetune_trainer.supervisor.outcome import Outcome, count_oom_kills, outcome_of_error
from finetune_trainer.supervisor.overseer import Overseer
from finetune_trainer.supervisor.situation import EventQueue, LeaveError, Situation, StopOrder, run_in_background
from finetune_trainer.supervisor.startup import Inputs
from finetune_trainer.supervisor.uploads import Uploader

logger = logging.getLogger(__name__)
GRACE_MARGIN_SECONDS = 5.0
"""Kept of the grace period for the termination message."""
FREEZE_PATIENCE_SECONDS = 600.0


class Session:
    """Handles events; what they amount to is in :attr:`now`, what follows at the end is in :mod:`finetune_trainer.supervisor.ending`."""

    def __init__(
        self, inputs: Inputs, queue: EventQueue, crew: Crew, bond: Bond, *, make_uploader: Callable[[events.Started], Uploader]
    ) -> None:
        self.inputs, self.crew, self.bond = inputs, crew, bond
        self.board = inputs.board
        self.now = Situation()
        self._queue = queue
        self._make_uploader = make_uploader
        self.uploader: Uploader | None = None
        self._overseer = Overseer(self)
        self._skipped: list[int] = []

    @property
    def is_leader(self) -> bool:
        """Whether this is pod 0."""
        return self.inputs.environment.pod_index == 0

    @property
    def metrics_file(self) -> Path | None:
        """Where rank 0 writes the values of every step, once that is known."""
        return self.now.started.plan.metrics_file if self.now.started else None

    # --- the order of things ---

    def start_up(self, work: Callable[[], events.Started]) -> events.Started:
        """Run start-up in a thread while events are handled; raises LeaveError when a stop, a loss or an error ends it."""
        run_in_background(
            "startup", lambda: self._queue.put(events.StartupDone(work())), lambda error: self._queue.put(events.StartupFailed(error))
        )
        self.wait(lambda: self.now.started is not None or self.now.stop is not None)
        if self.now.started is None:
            raise LeaveError(Outcome(EXIT_STOPPED, message="stopped before training began"))
        return self.now.started

    def train(self, started: events.Started) -> None:
        """Start the workers and wait until all have ended, or until a stop is overdue."""
        self.uploader = self._make_uploader(started)
        self.uploader.start()
        self.now.oom_kills_before = count_oom_kills(self.inputs.environment.memory_events)
        self.board.update(phase="Loading")
        self._overseer.guard.ended(None)
        self.crew.start(started.plan)
        if self.now.stop is not None:
            self.crew.order_stop(self.now.stop.trigger)
        self.wait(lambda: self.crew.workers.are_done, deadline=self.stop_deadline)
        if self.board.ledger is not None:
            self.board.ledger.ranks_ended(self.board.snapshot().phase)

    def wait(self, until: Callable[[], bool], *, deadline: Callable[[], float | None] = lambda: None) -> bool:
        """Handle events until a condition holds; False when the deadline passed first."""
        return self._queue.pump(self.handle, self._tick, until=until, deadline=deadline)

    def stop_deadline(self) -> float | None:
        """When a stop has to be over: the grace period after SIGTERM, the command's timeout unless the operator waits for the save."""
        if self.now.signalled_at is not None:
            return self.now.signalled_at + self.inputs.spec.pause_policy.grace_seconds - GRACE_MARGIN_SECONDS
        stop = self.now.stop
        if stop is None or stop.command is None:
            return None
        policy = self.inputs.spec.pause_policy
        if (stop.command.if_unsaved or policy.if_unsaved) == "Wait":
            return time.monotonic() if self.now.released else None
        return stop.at + (stop.command.timeout_seconds or policy.timeout_seconds)

    # --- events ---

    def handle(self, event: events.Event) -> None:
        """Note what an event means; raises LeaveError for those that end the pod at once."""
        match event:
            case events.SignalReceived():
                self._signalled()
            case events.StartupDone():
                self.now.started = event.started
            case events.StartupFailed() | events.BackgroundFailed():
                raise LeaveError(outcome_of_error(event.error))
            case events.Superseded():
                raise LeaveError(Outcome(EXIT_STOPPED, message=event.reason))
            case events.MessageReceived():
                self._message(event)
            case events.WorkerExited():
                self._worker_exited(event)
            case events.CommandReceived():
                self._command(event.command, event.at)
            case events.CheckpointCommitted() | events.UploadFailed() | events.FinalCommitted():
                self._uploaded(event)
            case events.GroupStopping() | events.StepsSkipped() | events.GroupFinished() | events.GroupLost():
                self._group_event(event)

    def _uploaded(self, event: events.CheckpointCommitted | events.UploadFailed | events.FinalCommitted) -> None:
        match event:
            case events.CheckpointCommitted():
                self._committed(event.step, event.manifest)
            case events.UploadFailed():
                self.now.given_up[event.step] = str(event.error)
            case events.FinalCommitted():
                self.now.final_uri = event.uri

    def _group_event(self, event: events.GroupStopping | events.StepsSkipped | events.GroupFinished | events.GroupLost) -> None:
        match event:
            case events.GroupStopping():
                self._order_stop(StopOrder(event.trigger, time.monotonic()))
            case events.StepsSkipped():
                if self.uploader is not None:
                    self.uploader.skip(event.steps)
            case events.GroupFinished():
                self.now.group_finished = True
            case events.GroupLost():
                self._group_lost(event.reason)

    def skipped(self, step: int) -> None:
        """Pod 0 replaced a waiting save: the others must not upload theirs. Called by the uploader."""
        self._skipped.append(step)
        self.bond.skipping(list(self._skipped))

    def _tick(self) -> None:
        lost = self.bond.lost()
        if lost and not self.now.lost and not self.now.group_finished:
            self._group_lost(lost)
        self._overseer.look()

    def _signalled(self) -> None:
        if self.now.signalled_at is not None:
            return
        logger.info("asked to stop by a signal")
        self.now.signalled_at = time.monotonic()
        if not self.crew.workers.processes and self.now.stop is None:
            raise LeaveError(Outcome(EXIT_STOPPED, message="stopped before training began"))
        self._order_stop(StopOrder("signal", time.monotonic()))

    def _order_stop(self, order: StopOrder) -> None:
        """Pass on the first order to stop; a later one changes deadlines only."""
        if self.now.stop is not None:
            if order.command is not None and self.now.stop.command is None:
                self.now.stop = StopOrder(self.now.stop.trigger, self.now.stop.at, order.command)
            return
        self.now.stop = order
        self.bond.stopping(order.trigger)
        if self.crew.workers.processes:
            self.crew.order_stop(order.trigger)

    def _command(self, command: Command, at: float) -> None:
        logger.info("command %s (%s)", command.action, command.id)
        match command.action:
            case "pause" | "stop":
                self._order_stop(StopOrder(command.action, at, command))
            case "checkpoint":
                self.now.save_commands.append(command.id)
                self.crew.order_save()
            case "release":
                self.now.released = True

    def _message(self, event: events.MessageReceived) -> None:
        """Take over what a worker reports."""
        now, board = self.now, self.board
        match event.message:
            case StepReport() as step:
                board.step(step)
            case Phase() as phase:
                self._beat(event.rank, phase)
            case Evaluated() as result:
                board.update(eval_loss=result.metrics.get("eval_loss"), best=result.best)
                board.learn_metrics(method_evaluation(result.metrics))
            case Facts() as facts:
                board.learn(facts.facts)
                if facts.missing_parts is not None:
                    board.measure(names.MISSING_PARTS, facts.missing_parts)
                self._check_facts(facts)
            case Warned() as warning:
                board.warn(warning.condition, warning.message)
            case Saved() as saved:
                self._saved(saved)
            case StopAgreed() as agreed:
                now.agreed, now.agreed_at = now.agreed or agreed, now.agreed_at or time.monotonic()
            case FinalSaved() as final:
                now.final = final
            case Used() as used:
                board.settle(used)
            case Failed() as failure:
                now.failures[-1 if event.rank is None else event.rank] = failure
            case _:
                pass

    def _beat(self, rank: int | None, phase: Phase) -> None:
        if rank is not None:
            self._overseer.guard.heard(rank, phase.phase, phase.counter)
        if rank in (None, 0) or not self.is_leader:
            self.board.update(phase=phase.phase, counter=phase.counter)

    def _saved(self, saved: Saved) -> None:
        self.now.saved_step, self.now.saved_trigger, self.now.saved_at = saved.step, saved.trigger, time.monotonic()
        self.board.update(best=saved.best, step=max(saved.step, self.board.snapshot().step))

    def _check_facts(self, facts: Facts) -> None:
        """Freeze what rank 0 of the first attempt found; hold later attempts to it."""
        started = self.now.started
        if facts.pinned is None or started is None or not self.is_leader:
            return
        found = merge_pinned(started.known, facts.pinned)
        if started.stored is not None:
            try:
                check_pinned(started.stored, found)
            except TrainerError as error:
                raise LeaveError(outcome_of_error(error)) from error
            return
        store = self.inputs.store.with_patience(FREEZE_PATIENCE_SECONDS)
        run_in_background(
            "freeze",
            lambda: freeze(store, found, replace=started.starts_anew),
            lambda error: self._queue.put(events.BackgroundFailed(error)),
        )

    def _worker_exited(self, event: events.WorkerExited) -> None:
        self.crew.workers.record(event)
        rank = self.crew.workers.processes[event.local_rank].rank
        self._overseer.guard.ended(rank)
        logger.info("rank %s ended with code %s", rank, event.code)
        if event.code not in (EXIT_DONE, EXIT_STOPPED) and event.local_rank not in self.crew.workers.terminated:
            self.bond.failing(f"rank {rank} ended with code {event.code}")

    def _committed(self, step: int, manifest: Manifest | None) -> None:
        now, board = self.now, self.board
        now.committed_step, now.committed_at = max(step, now.committed_step or 0), time.monotonic()
        if manifest is None:
            return
        logger.info("checkpoint of step %s is complete in the store", step)
        report = CheckpointReport(
            attempt=manifest.attempt,
            step=step,
            uri=self.inputs.store.url(checkpoint_prefix(manifest.attempt, step)),
            size_bytes=manifest.size_bytes,
            created_at=manifest.created_at,
            trigger=manifest.trigger,
            eval_loss=manifest.metrics.get("eval_loss"),
        )
        board.add_checkpoint(report)
        board.measure(names.CHECKPOINT_BYTES, manifest.size_bytes)
        board.measure(names.CHECKPOINT_LAST_STEP, step)
        board.measure(names.CHECKPOINT_LAST_SUCCESS, time.time())
        if manifest.trigger == "command":
            for command_id in now.save_commands:
                board.acknowledge(command_id)
            now.save_commands.clear()

    def _group_lost(self, reason: str) -> None:
        if self.now.lost:
            return
        logger.error("the group is lost: %s", reason)
        self.now.lost, self.now.lost_at = reason, time.monotonic()
        self.bond.failing(reason)
        if self.uploader is not None:
            self.uploader.expect_no_more_parts()
        if not self.crew.workers.processes:
            raise LeaveError(Outcome(EXIT_PEER_LOST, FailureClass.PEER_LOST, reason))


def method_evaluation(metrics: dict[str, float]) -> dict[str, float]:
    """The method's own numbers of an evaluation, by the trainer's names (``eval_reward``, ``eval_rewards/margins``)."""
    common = ("eval_loss", "eval_token_accuracy", "eval_entropy", "eval_samples_per_second")
    return {name: value for name, value in metrics.items() if name not in common}

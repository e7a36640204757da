"""What happens after each step: all ranks agree on it, then the stock loop is told by its control flags."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import Trigger
from finetune_trainer.errors import TrainerError
from finetune_trainer.protocol import Evaluated, StopAgreed
from finetune_trainer.worker import checkpoint, overfitting, trend
from finetune_trainer.worker.decision import decide
from finetune_trainer.worker.evaluation import Evaluation
from finetune_trainer.worker.facts import check_shares
from finetune_trainer.worker.ledger import LOWEST_LOSS
from finetune_trainer.worker.orders import Bit, StopTrigger, stop_trigger
from finetune_trainer.worker.probe import is_due, probe

if TYPE_CHECKING:
    from finetune_trainer.worker.recorder import Recorder, StepRecord
    from finetune_trainer.worker.session import Session
    from finetune_trainer.worker.trainer import FineTuneTrainer


class Conductor(TrainerCallback):  # type: ignore[misc]  # transformers is not typed
    """Asks the group at the end of each step and after each evaluation, and sets the loop's flags."""

    def __init__(self, session: Session, recorder: Recorder) -> None:
        self._session = session
        self.recorder = recorder
        self.save_trigger: Trigger = "steps"
        """Why the save that is under way was decided."""
        self._trainer: FineTuneTrainer | None = None
        self._learning_rate = 0.0
        self._is_training = False
        self._micro_batches = 0
        """Of all steps so far, the last one of each step not counted."""

    def attach(self, trainer: FineTuneTrainer) -> None:
        """Give the conductor its trainer, which is built after it."""
        self._trainer = trainer

    @property
    def trainer(self) -> FineTuneTrainer:
        """The attached trainer."""
        assert self._trainer is not None, "attach() comes before training"
        return self._trainer

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Check shares, probe, meet all ranks before step one; catch up on a skipped evaluation; see whether anything is left to train."""
        session = self._session
        check_shares(session, self.trainer.model)
        if is_due(session, args) and not session.schedule.is_last(state.global_step):
            probe(session, self.trainer)
        session.orders.begin()
        if (stop := stop_trigger(session.group.agree(session.orders.stop_bits))) is not None:
            self._stop(control, stop, state.global_step, will_save=False)
            return
        session.stopwatch.lap("starting")
        session.last_save = time.monotonic()
        if session.progress.evaluation_due or self._lacks_last_evaluation(state):
            session.progress.evaluation_due = False
            self.trainer.evaluate()
        if session.progress.ledger.is_exhausted(session.spec.early_stopping.patience):
            session.early_stopped = True
            control.should_training_stop = True
        if session.schedule.is_last(state.global_step):
            control.should_training_stop = True
        self._is_training = not control.should_training_stop
        if self._is_training:
            self._beat(state)

    def _lacks_last_evaluation(self, state: TrainerState) -> bool:
        """Whether the run ends where its checkpoint was made, and that was not its end yet (S-04): ``maxSteps`` says so now."""
        schedule, step = self._session.schedule, state.global_step
        known = {entry["step"] for entry in state.log_history if self._session.goal.metric in entry}
        return step > 0 and schedule.is_last(step) and schedule.is_evaluation_due(step) and step not in known

    def on_pre_optimizer_step(self, *_args: Any, **_: Any) -> None:
        """Keep the learning rate this step is made with; the scheduler moves on before the step ends."""
        self._learning_rate = float(self.trainer.lr_scheduler.get_last_lr()[0])

    def on_step_end(self, _args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Record the step, agree, decide."""
        session, step = self._session, state.global_step
        replayed = step <= session.plan.lost_until_step
        seconds = session.stopwatch.lap("replayed" if replayed else "productive")
        skipped = self.trainer.accelerator.optimizer_step_was_skipped
        self.recorder.end_step(
            step,
            learning_rate=self._learning_rate,
            seconds=seconds,
            update_skipped=skipped,
            tokens=self.trainer.step_tokens,
            metrics=self.trainer.take_metrics("train"),
        )
        agreed = session.group.agree(session.orders.take() | self._interval_bit() | checkpoint.progress_bit(session))
        if Bit.WRITTEN in agreed:
            checkpoint.hand_over(session)
        decision = decide(step, agreed, session.schedule)
        records = self._read(
            state,
            is_log_due=step % session.spec.logging.steps == 0 or decision.finish,
            needed=decision.save is not None or decision.evaluate,
        )
        self._judge(records)
        session.progress.evaluation_due = decision.evaluation_due
        control.should_evaluate = decision.evaluate
        control.should_save = self._can_save(decision.save)
        control.should_training_stop = decision.finish
        if decision.stop is not None:
            self._stop(control, decision.stop, step, will_save=control.should_save)
        elif not decision.evaluate:
            self._beat(state)

    def on_substep_end(self, _args: Any, state: TrainerState, _control: TrainerControl, **_: Any) -> None:
        """Show that a long step is not a stall."""
        self._micro_batches += 1
        self._beat(state)

    def evaluated(self, control: TrainerControl, state: TrainerState, result: Evaluation | None) -> None:
        """Take in an evaluation, or leave it for the resumed run when the group stopped in the middle of it."""
        session, step = self._session, state.global_step
        seconds = session.stopwatch.lap("evaluating")
        control.should_evaluate = False
        if result is None:
            session.progress.evaluation_due = True
            stop = stop_trigger(session.group.agree(session.orders.stop_bits))
            assert stop is not None, "an evaluation is abandoned only for a stop"
            control.should_save = self._can_save(stop)
            self._stop(control, stop, step, will_save=control.should_save)
            return
        # Caught up on resume: the weights evaluated are those of the checkpoint this attempt started from.
        self._keep(result, step, seconds, state, attempt=session.plan.attempt if self._is_training else session.parent_attempt)
        if session.progress.ledger.is_exhausted(session.spec.early_stopping.patience):
            session.early_stopped = True
            control.should_training_stop = True
            if session.schedule.save_at_end:
                control.should_save = self._can_save("final")
        best = session.progress.ledger.best
        if best is not None and best.step == step and session.keeps_best and not control.should_save:
            control.should_save = self._can_save("epoch" if session.spec.evaluation.strategy == "epoch" else "steps")

    def _keep(self, result: Evaluation, step: int, seconds: float, state: TrainerState, *, attempt: int) -> None:
        session = self._session
        value = result.metrics[session.goal.metric]
        if not math.isfinite(value):
            raise TrainerError(FailureClass.LOSS_DIVERGED, f"the evaluation at step {step} gives {session.goal.metric} {value}", step=step)
        session.progress.ledger = session.progress.ledger.after(
            value, step=step, attempt=attempt, threshold=session.spec.early_stopping.threshold, goal=session.goal
        )
        session.progress.metrics |= result.metrics
        state.log_history.append({**result.metrics, "epoch": state.epoch, "step": step})
        if session.goal is LOWEST_LOSS:
            session.warn(overfitting.CONDITION, overfitting.suspicion(state.log_history))
        session.track(step, {name.replace("_", "/", 1): number for name, number in result.metrics.items()})
        if session.rank.is_first:
            best = session.progress.ledger.best
            session.link.send(Evaluated(step=step, metrics=result.metrics, best=best, seconds=seconds))

    def _read(self, state: TrainerState, *, is_log_due: bool, needed: bool) -> list[StepRecord]:
        """Read the device where a log or a save needs it, close the logging window where a log is due, and report the step.

        Returns the steps that were read.
        """
        records: list[StepRecord] = self.recorder.read() if is_log_due or needed else []
        if not records or not is_log_due:
            self.recorder.report(None, None)
            return records
        progress, last = self._session.progress, records[-1]
        loss = sum(progress.window) / len(progress.window)
        progress.window.clear()
        progress.metrics |= {"loss": loss, "learning_rate": last.learning_rate, **last.metrics}
        if last.token_accuracy is not None:
            progress.metrics["token_accuracy"] = last.token_accuracy
        entry = {"loss": loss, "grad_norm": last.grad_norm, "learning_rate": last.learning_rate, "epoch": last.epoch, "step": last.step}
        state.log_history.append({**entry, **last.metrics})
        shown = {name: value for name, value in {**entry, **last.metrics}.items() if name != "step" and value is not None}
        self._session.track(last.step, {f"train/{name}": value for name, value in shown.items()})
        self.recorder.report(loss, last.grad_norm, last.metrics)
        return records

    def _judge(self, records: list[StepRecord]) -> None:
        """Warn of a loss that rises; raises :class:`TrainerError` (LossDiverged), on all ranks alike, when it has clearly diverged."""
        session, spec = self._session, self._session.spec
        if not trend.is_judged(spec):
            return
        for record in records:
            session.progress.trend = now = session.progress.trend.after(record.step, record.loss)
            if now.has_diverged and not spec.dataset.streaming:
                message = f"training diverged by step {record.step}: {trend.describe(now, spec)}"
                raise TrainerError(FailureClass.LOSS_DIVERGED, message, step=record.step, steady_until=now.steady_until)
        if records:
            session.warn(trend.CONDITION, trend.describe(session.progress.trend, spec))

    def _beat(self, state: TrainerState) -> None:
        self._session.heartbeat.beat("Training", state.global_step + self._micro_batches)

    def _interval_bit(self) -> Bit:
        """Rank 0 alone looks at the clock, so that no two ranks can disagree."""
        session = self._session
        if not session.rank.is_first or session.spec.checkpoint.strategy == "no" or session.saving is not None:
            return Bit.NONE
        is_due = time.monotonic() - session.last_save >= 60 * session.spec.checkpoint.interval_minutes
        return Bit.INTERVAL if is_due else Bit.NONE

    def _can_save(self, trigger: Trigger | None) -> bool:
        if trigger is None or not self._is_training:
            return False
        self.save_trigger = trigger
        return checkpoint.has_space(self._session, self.trainer)

    def _stop(self, control: TrainerControl, trigger: StopTrigger, step: int, *, will_save: bool) -> None:
        self._session.stopped = trigger
        control.should_training_stop = True
        if self._session.rank.is_first_of_pod:
            self._session.link.send(StopAgreed(step=step, will_save=will_save))

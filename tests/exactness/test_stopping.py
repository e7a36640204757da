"""When a group stops: at once before the first step, at an agreed step after it, and never past the end."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from finetune_trainer.protocol import Evaluated, Facts, FinalSaved, Phase, Saved, StepReport, StopAgreed, WorkerMessage
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import Attempt, evaluations, steps_of, stop_at, stopped_step, weights

EVALUATED: dict[str, Any] = {
    "dataset": {"evalRatio": 0.1},
    "training": {"maxSteps": 8},
    "evaluation": {"strategy": "steps", "steps": 4, "batchSize": 1},
}


def test_before_the_first_step_a_worker_leaves_at_once(make_run: MakeRun) -> None:
    """Told to stop while it loads: exit 75, nothing saved (OP-09)."""

    def early(attempt: Attempt, _rank: int, message: WorkerMessage) -> None:
        if isinstance(message, Phase) and message.phase == "Loading":
            attempt.stop()

    result = make_run().attempt(hook=early)
    assert result.codes == [75]
    assert not result.of(Facts)
    assert not result.of(Saved)


def test_a_signal_to_one_rank_stops_all(make_run: MakeRun) -> None:
    """SIGTERM of rank 1 alone: both ranks save the same step and leave with 75 (Q-11)."""

    def term(attempt: Attempt, _rank: int, message: WorkerMessage) -> None:
        if isinstance(message, StepReport) and message.step == 3:
            attempt.signal(signal.SIGTERM, 1)

    result = make_run().attempt(2, hook=term)
    assert result.codes == [75, 75]
    (saved,) = result.of(Saved)
    assert saved.trigger == "signal"
    assert saved.step == stopped_step(result)
    names = {file.name for file in result.checkpoints[saved.step].iterdir()}
    wanted = {"adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "training_args.bin"}
    assert wanted | {"rng_state_0.pth", "rng_state_1.pth", "finetune_state.json"} <= names, "R-10 and one random state per rank"
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in result.checkpoints[saved.step].iterdir())


def test_a_pause_saves_with_strategy_no(make_run: MakeRun) -> None:
    """``checkpoint.strategy: no`` still saves on a pause, and only then (R-14, R-01)."""
    run = make_run({"checkpoint": {"strategy": "no"}})
    paused = run.attempt(hook=stop_at(4))
    assert [saved.trigger for saved in paused.of(Saved)] == ["pause"]
    resumed = run.attempt(resume=stopped_step(paused))
    assert resumed.codes == [0], resumed.log
    assert not resumed.of(Saved)
    assert resumed.of(FinalSaved)


def test_a_due_evaluation_is_left_for_the_resumed_run(make_run: MakeRun) -> None:
    """The evaluation of the stopping step is noted, and run before anything else on resume."""
    whole = make_run(EVALUATED).attempt()
    run = make_run(EVALUATED)
    paused = run.attempt(hook=stop_at(3))
    step = stopped_step(paused)
    assert paused.manifests[step].evaluation_due == (step % 4 == 0)
    resumed = run.attempt(resume=step)
    assert evaluations(paused, resumed) == evaluations(whole)
    assert weights(resumed) == weights(whole)


def test_an_evaluation_is_abandoned_for_a_stop(make_run: MakeRun) -> None:
    """Told to stop in the middle of an evaluation: the step is saved, the evaluation runs again on resume."""

    def interrupt(attempt: Attempt, _rank: int, message: WorkerMessage) -> None:
        if isinstance(message, Phase) and message.phase == "Evaluating":
            attempt.stop()

    whole = make_run(EVALUATED).attempt()
    run = make_run(EVALUATED)
    paused = run.attempt(hook=interrupt)
    assert paused.codes == [75], paused.log
    if stopped_step(paused) == 4:
        assert paused.manifests[4].evaluation_due
        assert not paused.of(Evaluated)
    resumed = run.attempt(resume=stopped_step(paused))
    assert evaluations(paused, resumed) == evaluations(whole)
    assert steps_of(paused, resumed) == steps_of(whole)


def test_a_stop_at_the_last_step_is_a_finish(make_run: MakeRun) -> None:
    """Nothing is left to resume, so nothing is left unfinished."""
    result = make_run({"training": {"maxSteps": 5}}).attempt(hook=stop_at(5))
    assert result.codes == [0], result.log
    assert not result.of(StopAgreed)


@pytest.mark.parametrize("spec", [{}, EVALUATED])
def test_resumed_at_its_end_a_run_trains_nothing(make_run: MakeRun, spec: dict[str, Any]) -> None:
    """From the checkpoint of the last step: no 13th step, the same weights, the final evaluation where there is one."""
    run = make_run(spec)
    whole = run.attempt()
    again = run.attempt(resume=max(whole.checkpoints))
    assert again.codes == [0], again.log
    assert not again.metrics
    assert weights(again) == weights(whole)


def test_a_run_that_ends_at_its_checkpoint_is_evaluated_there(make_run: MakeRun) -> None:
    """S-04, S-09: paused before its end, then shortened to it: nothing is trained, and the evaluation of its end is made."""
    spec = {**EVALUATED, "evaluation": {"strategy": "no", "batchSize": 1}}
    whole = make_run(spec | {"training": {"maxSteps": 4}}).attempt()
    run = make_run(spec)
    step = stopped_step(run.attempt(hook=stop_at(3)))
    run.edit({"training": {"maxSteps": step}})
    ended = run.attempt(resume=step)
    assert ended.codes == [0], ended.log
    assert not ended.metrics
    (evaluated,) = ended.of(Evaluated)
    assert evaluated.step == step
    assert len(whole.of(Evaluated)) == 1


def test_two_stops_are_one(make_run: MakeRun) -> None:
    """A second order and a SIGTERM after it change nothing."""

    def insist(attempt: Attempt, _rank: int, message: WorkerMessage) -> None:
        if isinstance(message, StepReport) and message.step == 2:
            attempt.stop("pause")
            attempt.stop("stop")
            attempt.signal(signal.SIGTERM)

    result = make_run().attempt(hook=insist)
    assert result.codes == [75]
    assert len(result.of(Saved)) == 1
    assert len(result.of(StopAgreed)) == 1

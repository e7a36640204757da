"""Best weights, early stopping and edited schedules over attempts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from finetune_trainer.protocol import Evaluated, Facts, FinalSaved, Saved, Warned
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import Result, evaluations, failure, steps_of, stop_at, stopped_step, weights

DIVERGING: dict[str, Any] = {
    # High enough to get worse after a few steps, so that the best evaluation is not the last one.
    "dataset": {"evalRatio": 0.1},
    "adapter": {"rank": 16},
    "training": {"maxSteps": 60, "learningRate": 0.05, "lrScheduler": "constant"},
    "evaluation": {"strategy": "steps", "steps": 3, "batchSize": 8},
    "earlyStopping": {"patience": 3, "threshold": 0.01},
}


def best_of(result: Result) -> tuple[int, float]:
    """Step and value of the last known best."""
    best = result.of(Evaluated)[-1].best
    assert best is not None
    return best.step, best.value


def test_early_stopping_and_best_survive_a_stop_on_an_empty_disk(make_run: MakeRun) -> None:
    """Same stop step, same best, same final adapter bytes, with a stop between the best evaluation and the end (S-06, S-10)."""
    whole = make_run(DIVERGING).attempt()
    assert whole.codes == [0], whole.log
    (final,) = whole.of(FinalSaved)
    assert final.early_stopped
    assert final.source == "best"
    best_step, best_value = best_of(whole)
    assert best_value == min(evaluations(whole).values())
    last = max(whole.metrics)
    assert best_step < last < 60
    run = make_run(DIVERGING)
    first = run.attempt(hook=stop_at(best_step + 1))
    shutil.rmtree(run.directory / "attempt-1" / "output")
    second = run.attempt(resume=stopped_step(first))
    assert max(second.metrics) == last
    assert best_of(second) == best_of(whole)
    assert weights(second) == weights(whole)
    best_dir = next(path for path in (first.checkpoints | second.checkpoints).items() if path[0] == best_step)[1]
    assert weights(second) == (best_dir / "adapter_model.safetensors").read_bytes()


def test_the_best_step_is_saved_whatever_the_interval(make_run: MakeRun) -> None:
    """With output.use best every new best has its checkpoint, marked as such."""
    result = make_run({**DIVERGING, "earlyStopping": {"patience": 0}, "output": {"use": "best"}, "training": {"maxSteps": 12}}).attempt()
    best_step, _ = best_of(result)
    assert best_step in {saved.step for saved in result.of(Saved) if saved.is_best}


def test_output_use_last(make_run: MakeRun) -> None:
    """Without early stopping the last weights are the result, and no evaluation forces a save."""
    result = make_run({**DIVERGING, "earlyStopping": {"patience": 0}, "training": {"maxSteps": 6}}).attempt()
    assert [saved.trigger for saved in result.of(Saved)] == ["final"]
    assert result.of(FinalSaved)[0].source == "last"
    assert weights(result) == (result.checkpoints[6] / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("edit", "rate_at_10"),
    [
        ({"learningRate": 1e-3}, 1e-3 * (20 - 9) / 20),
        ({"maxSteps": 40}, 2e-3 * (40 - 9) / 40),
        ({"lrScheduler": "constant"}, 2e-3),
    ],
)
def test_an_edited_schedule_applies_from_the_resumed_step(make_run: MakeRun, edit: dict[str, Any], rate_at_10: float) -> None:
    """Rate, length and shape of the schedule may be edited while stopped; status says so (A-17)."""
    run = make_run({"training": {"maxSteps": 20, "lrScheduler": "linear", "warmupRatio": 0}})
    first = run.attempt(hook=stop_at(8))
    step = stopped_step(first)
    assert step < 10
    run.edit({"training": edit})
    second = run.attempt(resume=step)
    assert second.codes == [0], second.log
    assert second.metrics[10]["learning_rate"] == pytest.approx(rate_at_10, rel=1e-12)
    assert max(second.metrics) == edit.get("maxSteps", 20)
    (warning,) = second.of(Warned)
    assert warning.condition == "ScheduleChanged"
    assert f"training.{next(iter(edit))}" in warning.message


def test_decay_and_logging_edits_apply(make_run: MakeRun) -> None:
    """Weight decay reaches the optimizer's groups, logging.steps the log; stock resume ignores both."""
    run = make_run({"training": {"weightDecay": 0.0}, "logging": {"steps": 6}})
    first = run.attempt(hook=stop_at(4))
    run.edit({"training": {"weightDecay": 0.5}, "logging": {"steps": 3}})
    second = run.attempt(resume=stopped_step(first))
    state = json.loads((second.checkpoints[12] / "trainer_state.json").read_text())
    assert [entry["step"] for entry in state["log_history"] if "loss" in entry] == [6, 9, 12]
    import torch  # noqa: PLC0415  # seconds, and only here

    groups = torch.load(second.checkpoints[12] / "optimizer.pt", weights_only=True)["param_groups"]
    assert {group["weight_decay"] for group in groups if group["params"]} == {0.5}


def test_another_global_batch_is_refused(make_run: MakeRun) -> None:
    """A resize must keep the rows per step; the message names a value that does."""
    run = make_run()
    first = run.attempt(hook=stop_at(4))
    run.edit({"training": {"batchSize": 1}})
    second = run.attempt(resume=stopped_step(first))
    assert second.codes == [42]
    assert failure(second).failure_class == "ConfigurationError"
    assert "set training.gradAccumSteps to 4" in failure(second).message


@pytest.mark.parametrize("missing", ["rng_state.pth", "optimizer.pt", "trainer_state.json"])
def test_an_incomplete_checkpoint_is_refused(make_run: MakeRun, missing: str) -> None:
    """A missing file is named, never passed over (AC-08)."""
    run = make_run()
    first = run.attempt(hook=stop_at(4))
    step = stopped_step(first)
    (first.checkpoints[step] / missing).unlink()
    second = run.attempt(resume=step)
    assert second.codes == [42], second.log
    assert failure(second).failure_class == "CheckpointIncomplete"
    assert missing in failure(second).message


def test_a_plain_trainer_directory_resumes(make_run: MakeRun, tmp_path: Path) -> None:
    """A checkpoint without anything of ours goes on at the next step (AC-07, R-08)."""
    whole = make_run().attempt()
    run = make_run()
    first = run.attempt(hook=stop_at(4))
    step = stopped_step(first)
    plain = tmp_path / f"checkpoint-{step}"
    shutil.copytree(first.checkpoints[step], plain)
    (plain / "finetune_state.json").unlink()
    second = run.attempt(directory=plain)
    assert second.codes == [0], second.log
    assert {number: row["loss"] for number, row in second.metrics.items()} == {
        number: row["loss"] for number, row in whole.metrics.items() if number > step
    }
    assert second.of(Facts)[0].facts["totalSteps"] == "12"


def test_cosine_restarts_once_in_mid_training(make_run: MakeRun) -> None:
    """AC-32, F-17, F-28: two cycles are one restart, amid what follows the warm-up; a resume behind it stands where it stood."""
    spec = {
        "training": {"maxSteps": 12, "lrScheduler": "cosine_with_restarts", "lrCosineCycles": 2, "warmupSteps": 2, "learningRate": 1e-3}
    }
    whole = make_run(spec).attempt()
    rates = [whole.metrics[step]["learning_rate"] for step in range(1, 13)]
    rises = [step for step in range(2, 13) if rates[step - 1] > rates[step - 2]]
    assert rises == [2, 3, 8], "warm-up, and once from the bottom of the first cycle to the peak"
    assert rates[:2] == [0, 5e-4]
    assert rates[2] == rates[7] == 1e-3
    run = make_run(spec)
    begun = run.attempt(hook=stop_at(8))
    resumed = run.attempt(resume=stopped_step(begun))
    assert steps_of(begun, resumed) == steps_of(whole)

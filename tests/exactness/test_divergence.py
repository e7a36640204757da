"""Going back from a divergence: the rows around it are left out, the rates are halved, and a resumed run does exactly the same."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import load_from_disk
from safetensors.numpy import load_file, save_file

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import Rewind
from finetune_trainer.protocol import Warned
from finetune_trainer.worker.checkpoint import STATE_FILE, CommonState
from finetune_trainer.worker.order import Order
from finetune_trainer.worker.trend import BLOCK, CONDITION, Trend
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import Run, failure, steps_of, stop_at, stopped_step, weights

SOAK = bool(os.environ.get("FINETUNE_SOAK"))
STEPS = 12
SPEC = {"checkpoint": {"steps": 3}, "training": {"maxSteps": STEPS}, "adapter": {"dropout": 0.1}}


def poisoned(model: Path, directory: Path, run: Run, ranks: int) -> tuple[Path, int]:
    """Copy the model with one embedding that is not a number, of a token that a single step of the first 20 has; returns that step."""
    spec = run.config(1).spec
    rows = load_from_disk(run.prepared / "train")["input_ids"][:]
    order = Order(len(rows), run.global_batch(ranks), spec.training.seed, reshuffle=False)
    tokens = [{token for row in step for token in rows[row]} for step in order.steps(1, 20)]
    step, token = next(
        (index + 1, min(alone))
        for index in range(4, 9)
        if index % 3 != 2 and (alone := tokens[index] - set().union(*(other for at, other in enumerate(tokens) if at != index)))
    )
    shutil.copytree(model, directory)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.embed_tokens.weight"][token] = np.nan
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory, step


@pytest.mark.parametrize("ranks", [1, 2] if SOAK else [2])
def test_a_rewound_run_leaves_out_the_rows_and_halves_the_rate(make_run: MakeRun, model: Path, tmp_path: Path, ranks: int) -> None:
    """Rows and rates of each step are those asked for; stopped and resumed, with logging.steps 10, the difference is 0.0."""
    plain = make_run(SPEC).attempt()
    run = make_run(SPEC)
    if ranks == 2:
        run.edit({"training": {"gradAccumSteps": 1}})
    run.model, diverged = poisoned(model, tmp_path / "poisoned", run, ranks)
    first = run.attempt(ranks)
    assert first.codes == [42] * ranks
    assert failure(first).step == diverged
    good = max(first.checkpoints)
    rewinds = [Rewind(step=good, diverged_step=diverged, skipped=diverged - good)]
    whole = run.attempt(ranks, resume=good, rewinds=rewinds)
    assert whole.codes == [0] * ranks, whole.log
    for step in range(good + 1, STEPS + 1):
        if step + diverged - good <= STEPS:
            assert whole.metrics[step]["samples"] == plain.metrics[step + diverged - good]["samples"]
        assert whole.metrics[step]["learning_rate"] == pytest.approx(plain.metrics[step]["learning_rate"] / 2, rel=1e-12)
    run.edit({"logging": {"steps": 10}})
    part = run.attempt(ranks, resume=good, rewinds=rewinds, hook=stop_at(good + 1))
    rest = run.attempt(ranks, resume=stopped_step(part), rewinds=rewinds)
    assert rest.codes == [0] * ranks, rest.log
    assert steps_of(part, rest) == steps_of(whole)
    assert weights(rest) == weights(whole)


def test_a_rewind_to_the_beginning(make_run: MakeRun) -> None:
    """Without any checkpoint the run begins again, at half the rate from its first step on, with the rows after the divergence."""
    plain = make_run(SPEC).attempt()
    again = make_run(SPEC).attempt(rewinds=[Rewind(step=0, diverged_step=2, skipped=2)])
    assert again.codes == [0], again.log
    assert again.metrics[1]["samples"] == plain.metrics[3]["samples"]
    assert all(again.metrics[step]["learning_rate"] == plain.metrics[step]["learning_rate"] / 2 for step in plain.metrics)


def about_to_diverge(checkpoint: Path, *, steps: int) -> None:
    """Let the record of a checkpoint be that of a loss which rose long ago, ``steps`` steps before that is clear."""
    file = checkpoint / STATE_FILE
    state = CommonState.model_validate_json(file.read_text())
    trend = Trend(losses=[5.0] * (BLOCK - steps), best=0.1, high=[5.0, 5.0], steady_until=1)
    file.write_text(state.model_copy(update={"trend": trend}).to_json())


def test_a_loss_that_has_risen_ends_the_run(make_run: MakeRun) -> None:
    """F-13: told, and ended on both ranks at one step; stopped before it and resumed, at the same; an edited rate gets its chance."""
    run = make_run({"training": {"gradAccumSteps": 1}, "logging": {"steps": 10}})
    begin = stopped_step(calm := run.attempt(2, hook=stop_at(3)))
    about_to_diverge(calm.checkpoints[begin], steps=4)
    stopped = run.attempt(2, resume=begin, hook=stop_at(begin + 1))
    (told,) = stopped.of(Warned)
    assert told.condition == CONDITION
    assert "steady until step 1: lower training.learningRate (0.002; usual with adapter.type lora are 0.0001 to 0.0005)" in told.message
    assert set(stopped.manifests) == {stopped_step(stopped)}
    ended = run.attempt(2, resume=stopped_step(stopped))
    assert ended.codes == [42, 42], ended.log
    failed = failure(ended)
    # Losses are read where they are logged, at step 10; what is said is the step at which the block was full.
    assert (failed.failure_class, failed.step, failed.steady_until) == (FailureClass.LOSS_DIVERGED, begin + 4, 1)
    assert max(ended.metrics) == 10
    run.edit({"training": {"learningRate": 1e-4}})
    assert run.attempt(2, resume=stopped_step(stopped)).codes == [0, 0]

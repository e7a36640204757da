"""Stopped or killed at any step and resumed = never interrupted: difference 0.0 in steps, logs, evaluations and weights."""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from finetune_trainer.protocol import Saved, StepReport, Warned, WorkerMessage
from tests.exactness import moments
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import WORKER, Attempt, Result, evaluations, logged, steps_of, stop_at, stopped_step, weights

STEPS = 24
SEEDS = range(int(os.environ.get("FINETUNE_SOAK") or 1))
"""More seeds, more moments: FINETUNE_SOAK=20 tries twenty."""
EVALUATED: dict[str, Any] = {
    "dataset": {"evalRatio": 0.1},
    "evaluation": {"strategy": "steps", "steps": 5, "batchSize": 4},
    "earlyStopping": {"patience": 50},
}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "lora-dropout-workers-logging-10": (1, {**EVALUATED, "dataset": {"evalRatio": 0.1, "numWorkers": 2}, "logging": {"steps": 10}}),
    "packing-reshuffle": (1, {**EVALUATED, "dataset": {"evalRatio": 0.1, "packing": True, "reshuffle": True}}),
    "full-checkpointing-bf16": (1, {"adapter": {"type": "full"}, "training": {"gradientCheckpointing": True}, "precision": {"bf16": True}}),
    "two-ranks": (2, {**EVALUATED, "logging": {"steps": 10}}),
    "two-ranks-packing-workers": (2, {"dataset": {"packing": True, "numWorkers": 1}, "logging": {"steps": 7}}),
}

MOMENTS: dict[str, set[int]] = {
    "load": set(),
    "accumulation": {moments.ACCUMULATING},
    "evaluation": {5},
    "save": {4},
    "upload": {5, 6, 7},
    "last-but-one": {moments.STEPS - 1},
    "last-step": {moments.STEPS},
}
"""Moment -> steps the group may stop at. An upload begins when the files of step 3 are written, behind the training; in the last step only
the evaluation of its end is left to stop."""
STOPPED = list(itertools.product((1, 2), (1, 10), MOMENTS))
FEW_STOPPED = [*((1, 10, moment) for moment in MOMENTS), (2, 1, "evaluation"), (2, 1, "save")]
"""Ranks, ``logging.steps``, moment."""


def changed(spec: dict[str, Any]) -> dict[str, Any]:
    """A case's spec: dropout wherever there is an adapter, an epoch end inside the run."""
    adapter = {"dropout": 0.1, **spec.get("adapter", {})}
    return {**spec, "adapter": adapter, "training": {"maxSteps": STEPS, **spec.get("training", {})}}


def assert_equal(whole: Result, *parts: Result) -> None:
    """The interrupted run shows the very numbers of the one never interrupted."""
    assert whole.codes == [0] * len(whole.codes), whole.log
    assert parts[-1].codes == whole.codes, parts[-1].log
    assert steps_of(*parts) == steps_of(whole)
    assert logged(*parts) == logged(whole)
    assert evaluations(*parts) == evaluations(whole)
    assert weights(parts[-1]) == weights(whole)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("case", CASES)
def test_stops_change_nothing(make_run: MakeRun, case: str, seed: int) -> None:
    """Two agreed stops at random steps, between logs, evaluations and epochs (R-08, R-14, F-30)."""
    ranks, spec = CASES[case]
    whole = make_run(changed(spec)).attempt(ranks)
    chosen = random.Random(f"{case}-{seed}")  # noqa: S311  # moments, not secrets
    stops = sorted(chosen.sample(range(1, STEPS), 2))
    run = make_run(changed(spec))
    parts: list[Result] = []
    for step in stops:
        resume = stopped_step(parts[-1]) if parts else None
        if resume is not None and resume >= step:
            continue
        parts.append(run.attempt(ranks, resume=resume, hook=stop_at(step)))
        assert parts[-1].codes == [75] * ranks, parts[-1].log
        assert set(parts[-1].checkpoints) >= {stopped_step(parts[-1])}
    parts.append(run.attempt(ranks, resume=stopped_step(parts[-1])))
    assert_equal(whole, *parts)


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("seed", SEEDS)
def test_kills_change_nothing(make_run: MakeRun, ranks: int, seed: int) -> None:
    """SIGKILL of a random rank at a random step: the run goes on from its last checkpoint, steps after it are trained again, equal."""
    chosen = random.Random(seed)  # noqa: S311  # moments, not secrets
    kill_at, victim = chosen.randrange(6, STEPS), chosen.randrange(ranks)
    spec = changed({**EVALUATED, "checkpoint": {"steps": 5}})
    whole = make_run(spec).attempt(ranks)

    def kill(attempt: Attempt, _rank: int, message: WorkerMessage) -> None:
        if isinstance(message, StepReport) and message.step == kill_at:
            attempt.signal(signal.SIGKILL, victim)

    run = make_run(spec)
    killed = run.attempt(ranks, hook=kill)
    assert killed.codes[victim] == -signal.SIGKILL
    assert all(code == 76 for rank, code in enumerate(killed.codes) if rank != victim), killed.log
    resumed = run.attempt(ranks, resume=max(killed.checkpoints))
    assert steps_of(killed, resumed) == steps_of(whole)
    assert evaluations(killed, resumed) == evaluations(whole)
    assert weights(resumed) == weights(whole)


@pytest.fixture(scope="module")
def never_stopped(make_run: MakeRun) -> Callable[[int, int], Result]:
    """The run that those stopped at a moment have to equal, by its ranks and ``logging.steps``."""
    return cache(lambda ranks, logging: make_run(watched(logging)).attempt(ranks))


def watched(logging: int) -> dict[str, Any]:
    """A run that saves at steps 3 and 6, and evaluates at 5 and at its end."""
    training = {"maxSteps": moments.STEPS}
    return changed({**EVALUATED, "training": training, "checkpoint": {"steps": 3}, "logging": {"steps": logging}})


def stop_at_moment(attempt: Attempt, _rank: int, message: WorkerMessage) -> None:
    """Tell all ranks to stop, as their supervisors do."""
    if isinstance(message, Warned) and message.condition == moments.CONDITION:
        for rank in reversed(range(attempt.world_size)):
            attempt.stop(rank=rank)


@pytest.mark.parametrize(("ranks", "logging", "moment"), STOPPED if "FINETUNE_SOAK" in os.environ else FEW_STOPPED)
def test_moments(make_run: MakeRun, never_stopped: Callable[[int, int], Result], ranks: int, logging: int, moment: str) -> None:
    """R-08, R-14, OP-09: told to pause at this very moment and resumed, with evaluations and early stopping."""
    run = make_run(watched(logging))
    run.worker, run.environment = "tests.exactness.moments", {"FINETUNE_TEST_MOMENT": moment}
    first = run.attempt(ranks, hook=stop_at_moment)
    assert first.codes == [75] * ranks, first.log
    assert moment in {message.message for message in first.of(Warned)}
    run.worker, step = WORKER, None
    if moment == "load":
        assert not first.metrics
        assert not first.checkpoints
    else:
        step = stopped_step(first)
        assert step in MOMENTS[moment]
        assert first.manifests[step].trigger == "pause"
    assert_equal(never_stopped(ranks, logging), first, run.attempt(ranks, resume=step))


@pytest.mark.parametrize("optimizer", ["adamw_8bit", "adafactor", "sgd"])
def test_optimizers(make_run: MakeRun, optimizer: str) -> None:
    """Every optimizer carries its state over a stop (F-14)."""
    spec = changed({"training": {"optimizer": optimizer, "maxSteps": 8, "lrScheduler": "linear"}})
    whole = make_run(spec).attempt()
    run = make_run(spec)
    first = run.attempt(hook=stop_at(4))
    assert_equal(whole, first, run.attempt(resume=stopped_step(first)))


def test_saves_on_command_change_nothing(make_run: MakeRun) -> None:
    """A checkpoint asked for by command interrupts nothing (design: commands)."""

    def ask(attempt: Attempt, _rank: int, message: WorkerMessage) -> None:
        if isinstance(message, StepReport) and message.step == 3:
            attempt.save()

    spec = changed({"training": {"maxSteps": 8}, "logging": {"steps": 5}})
    whole, asked = make_run(spec).attempt(), make_run(spec).attempt(hook=ask)
    triggers = {message.step: message.trigger for message in asked.of(Saved)}
    assert list(triggers.values()) == ["command", "final"]
    assert_equal(whole, asked)

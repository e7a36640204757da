"""The number of ranks changes neither which rows a step trains nor, beyond rounding, its loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from finetune_trainer.protocol import Facts, Warned
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import Result, evaluations, stop_at, stopped_step

STEPS = 100
TOLERANCE = 1e-5
SPEC: dict[str, Any] = {
    # 86 rows in batches of 8: the last step of each epoch has 6, so one micro-batch of four is empty or short.
    "dataset": {"maxSamples": 96, "evalRatio": 0.1},
    "training": {"maxSteps": STEPS, "batchSize": 2},
    "evaluation": {"strategy": "steps", "steps": 25, "batchSize": 3},
}


def spread(ranks: int, **training: int) -> dict[str, Any]:
    """The same global batch of 8 on so many ranks."""
    return {**SPEC, "training": {**SPEC["training"], "gradAccumSteps": 4 // ranks, **training}}


def assert_close(one: Result, other: Result) -> None:
    """Same rows, same losses and evaluations within rounding."""
    assert one.metrics.keys() == other.metrics.keys()
    assert [row["samples"] for row in one.metrics.values()] == [row["samples"] for row in other.metrics.values()]
    worst = max(abs(one.metrics[step]["loss"] - other.metrics[step]["loss"]) for step in one.metrics)
    assert worst <= TOLERANCE, f"largest difference of a step's loss: {worst}"
    assert evaluations(one).keys() == evaluations(other).keys()
    assert max(abs(value - evaluations(other)[step]) for step, value in evaluations(one).items()) <= TOLERANCE


@pytest.fixture(scope="module")
def one_rank(make_run: MakeRun) -> Result:
    """The run on one rank."""
    result = make_run(spread(1)).attempt(1)
    assert result.codes == [0], result.log
    return result


def test_two_ranks_train_alike(make_run: MakeRun, one_rank: Result) -> None:
    """2 ranks = 1 rank over 100 steps and ten epochs with a short last batch (AC-49, AC-73)."""
    assert_close(one_rank, make_run(spread(2)).attempt(2))
    assert one_rank.of(Facts)[0].facts["effectiveBatchSize"] == "8"


def test_ranks_may_change_between_attempts(make_run: MakeRun, one_rank: Result) -> None:
    """Begun on 2 ranks, resumed on 1 with the global batch kept: the run goes on where it was (OP-10)."""
    run = make_run(spread(2))
    first = run.attempt(2, hook=stop_at(30))
    run.edit(spread(1))
    second = run.attempt(1, resume=stopped_step(first))
    assert second.codes == [0], second.log
    assert [message.condition for message in second.of(Warned)] == ["RanksChanged"]
    assert_close(one_rank, replace(second, metrics=first.metrics | second.metrics, messages=first.messages + second.messages))

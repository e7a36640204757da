"""``training.backend: optimized`` computes the same numbers within rounding, and its runs resume as exactly as others."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_trainer.protocol import Facts
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import Result, evaluations, stop_at, stopped_step
from tests.exactness.test_resume import assert_equal
from tests.support.jobs import merge

SPEC: dict[str, Any] = {
    "dataset": {"packing": True, "evalRatio": 0.1},
    "evaluation": {"strategy": "steps", "steps": 4, "batchSize": 4},
    "training": {"maxSteps": 8},
}
OPTIMIZED: dict[str, Any] = {"training": {"backend": "optimized"}}
TOLERANCE = 2e-4
"""Relative; float32, other order of sums."""


def losses(result: Result) -> list[float]:
    """Loss and gradient norm of each step, and evaluations."""
    steps = [value for row in result.metrics.values() for value in (row["loss"], row["grad_norm"])]
    return [*steps, *evaluations(result).values()]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_same_training_within_rounding(make_run: MakeRun, ranks: int) -> None:
    """Losses, norms and evaluations of standard; resumed after a stop, bit by bit its own (issue 5, speed)."""
    standard = make_run(SPEC).attempt(ranks)
    run = make_run(merge(SPEC, OPTIMIZED))
    whole = run.attempt(ranks)
    assert standard.codes == whole.codes == [0] * ranks, whole.log
    assert losses(whole) == pytest.approx(losses(standard), rel=TOLERANCE)
    assert losses(whole) != losses(standard)
    facts = whole.of(Facts)[0]
    assert facts.facts["backendParts"] == "attention without padding, fused optimizer"
    assert facts.facts["backendMissing"] == "fused layer kernels: the kernels are made for GPUs"
    assert facts.missing_parts == 1
    if ranks == 1:
        stopped = make_run(merge(SPEC, OPTIMIZED))
        first = stopped.attempt(hook=stop_at(3))
        assert_equal(whole, first, stopped.attempt(resume=stopped_step(first)))

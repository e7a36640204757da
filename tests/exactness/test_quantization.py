"""An adapter over a 4-bit base trains, and resumes with the very numbers of a run never stopped (B-10, I-06, I-07)."""

from __future__ import annotations

from typing import Any

from finetune_trainer.protocol import Facts, Warned
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import steps_of, stop_at, stopped_step, weights

SPEC: dict[str, Any] = {
    "quantization": {"mode": "4bit"},
    "adapter": {"dropout": 0.1},
    "training": {"maxSteps": 6, "gradientCheckpointing": True},
    "dataset": {"evalRatio": 0.1},
    "evaluation": {"strategy": "steps", "steps": 2, "batchSize": 4},
}


def test_a_4bit_base(make_run: MakeRun) -> None:
    """PEFT would load the adapter in another number format than it was trained in; stopped between two steps, nothing differs.

    Evaluations leave the base as it is: packed for inference it would pass no gradients.
    """
    whole = make_run(SPEC).attempt()
    assert whole.codes == [0], whole.log
    assert whole.of(Facts)[0].facts["quantization"] == "4bit"
    run = make_run(SPEC)
    first = run.attempt(hook=stop_at(3))
    second = run.attempt(resume=stopped_step(first))
    assert second.codes == [0], second.log
    assert steps_of(first, second) == steps_of(whole)
    assert weights(second) == weights(whole)
    assert all(row["grad_norm"] > 0 for row in whole.metrics.values())


def test_a_4bit_base_that_is_split(make_sharded: MakeRun) -> None:
    """X33: asked for, ZeRO 3 splits a 4-bit base and resumes exactly; what that does not save is said."""
    spec = {**SPEC, "distributed": {"strategy": "zero3"}}
    whole = make_sharded(spec).attempt(2)
    assert whole.codes == [0, 0], whole.log
    found, shared = [message.facts for message in whole.of(Facts)]
    assert int(shared["parametersPerRank"]) < 0.51 * int(found["totalParameters"])
    assert "QuantizedBaseLoadedWhole" in {message.condition for message in whole.of(Warned)}
    run = make_sharded(spec)
    first = run.attempt(2, hook=stop_at(3))
    second = run.attempt(2, resume=stopped_step(first))
    assert second.codes == [0, 0], second.log
    assert steps_of(first, second) == steps_of(whole)
    assert weights(second) == weights(whole)

"""The start-up probe finds a batch that is too large, and leaves no trace in a training: difference 0.0."""

from __future__ import annotations

import os
from typing import Any

import pytest
from datasets import load_from_disk

from finetune_trainer.protocol import StepReport
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import failure, stop_at, stopped_step
from tests.exactness.test_resume import assert_equal
from tests.support.jobs import merge

STEPS = 6
PROBED: dict[str, Any] = {"resources": {"memoryProbe": True}}
CASES: dict[str, tuple[int, dict[str, Any]]] = {
    "packing-adamw-8bit": (1, {"dataset": {"packing": True, "numWorkers": 1}, "training": {"optimizer": "adamw_8bit"}}),
    "full-bf16-checkpointing": (1, {"adapter": {"type": "full"}, "training": {"gradientCheckpointing": True}, "precision": {"bf16": True}}),
    "two-ranks": (2, {}),
}
if os.environ.get("FINETUNE_SOAK"):
    CASES |= {
        "paged": (1, {"training": {"optimizer": "paged_adamw_8bit"}}),
        "adafactor": (1, {"training": {"optimizer": "adafactor"}}),
        "sgd": (1, {"training": {"optimizer": "sgd"}}),
    }


def spec_of(case: dict[str, Any]) -> dict[str, Any]:
    """Dropout wherever there is an adapter, so that every random state counts."""
    return merge({"adapter": {"dropout": 0.1}, "training": {"maxSteps": STEPS}}, case)


@pytest.mark.parametrize("case", CASES)
def test_the_probe_changes_nothing(make_run: MakeRun, case: str) -> None:
    """With and without it, and over a stop: the same losses, norms, accuracies, weights (issue 5, strategies)."""
    ranks, spec = CASES[case]
    plain = make_run(spec_of(spec)).attempt(ranks)
    run = make_run(merge(spec_of(spec), PROBED))
    first = run.attempt(ranks, hook=stop_at(3))
    second = run.attempt(ranks, resume=stopped_step(first))
    assert_equal(plain, first, second)
    assert "probe: 2 rows" in first.log
    assert "probe: 2 rows" in second.log
    assert "probe:" not in plain.log


def test_the_probe_of_shared_weights_changes_nothing(make_sharded: MakeRun) -> None:
    """The ranks of FSDP probe together."""
    spec = spec_of({"distributed": {"strategy": "fsdp"}})
    plain, probed = make_sharded(spec).attempt(2), make_sharded(merge(spec, PROBED)).attempt(2)
    assert_equal(plain, probed)
    assert "probe: 2 rows" in probed.log


def test_memory_that_will_not_do_is_found_before_the_first_step(make_run: MakeRun) -> None:
    """The longest batch alone is too large: the probe says so with measured and expected bytes and the first lever (Z-03, F-04, N-01)."""
    run = make_run(PROBED)
    run.worker = "tests.exactness.small_memory"
    longest = max(len(row) for row in load_from_disk(run.prepared / "train")["input_ids"][:])
    run.environment = {"FINETUNE_TEST_TOKENS": str(2 * longest - 1)}
    result = run.attempt()
    assert result.codes == [42], result.log
    assert not result.of(StepReport)
    assert failure(result).failure_class == "CudaOutOfMemory"
    said = failure(result).message
    assert f"by the longest batch, 2 rows of up to {longest} tokens, before the first step" in said
    assert "GiB were expected" in said
    assert "GiB of main memory at the peak" in said
    assert said.endswith("set training.batchSize to 1 and training.gradAccumSteps to 4")

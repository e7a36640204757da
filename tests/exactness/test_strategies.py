"""Every strategy trains what ddp trains, splits what it says it splits, and goes on after a stop as if there had been none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from safetensors.torch import load_file

from finetune_api.strategies import SHARDS_WEIGHTS, STRATEGIES
from finetune_trainer.protocol import Facts
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import Result, Run, evaluations, failure, logged, steps_of, stop_at, stopped_step, weights
from tests.support.matrix import ENABLED, Cell, record

STEPS = 8
TOLERANCE = 2e-5
SHARDED = [name for name in STRATEGIES if name not in ("none", "ddp")]
SPEC: dict[str, Any] = {
    "dataset": {"evalRatio": 0.1},
    # 10 evaluation rows in batches of 4 over 2 ranks: the last turn has a batch for one rank only.
    "evaluation": {"strategy": "steps", "steps": 3, "batchSize": 4},
    "training": {"maxSteps": STEPS, "gradAccumSteps": 2},
    "logging": {"steps": 3},
}
ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"dropout": 0.1}, "training": {**SPEC["training"], "gradientCheckpointing": True}},
    "full": {"adapter": {"type": "full"}},
    "qlora": {"adapter": {"dropout": 0.1}, "quantization": {"mode": "4bit"}},
}
CELLS = [(strategy, adapter) for strategy in STRATEGIES for adapter in ADAPTERS if (strategy, adapter) != ("fsdp", "qlora")]
PLAIN = [
    ("fsdp", "lora"),
    ("fsdp", "full"),
    ("zero1", "lora"),
    ("zero2", "full"),
    ("zero2_offload", "lora"),
    ("zero2", "qlora"),
    ("zero3", "lora"),
    ("zero3_offload", "full"),
]
CHOSEN = CELLS if ENABLED else PLAIN
"""Every strategy in ``make test``, every strategy with every adapter in ``make matrix``."""


def spec_of(strategy: str, cell: str, **changes: Any) -> dict[str, Any]:
    """A cell's job."""
    return {**SPEC, **ADAPTERS[cell], **changes, "distributed": {"strategy": strategy}}


@pytest.fixture(scope="module")
def references(make_sharded: MakeRun) -> dict[str, Result]:
    """The same trainings with whole copies on two ranks."""
    results = {adapter: make_sharded(spec_of("ddp", adapter)).attempt(2) for adapter in ADAPTERS}
    assert {tuple(result.codes) for result in results.values()} == {(0, 0)}, [result.log for result in results.values()]
    return results


@pytest.mark.matrix
@pytest.mark.parametrize(("strategy", "adapter"), CHOSEN, ids=lambda value: value)
def test_trains_alike_and_resumes_exactly(make_sharded: MakeRun, references: dict[str, Result], strategy: str, adapter: str) -> None:
    """M-03, M-04, M-07, R-08, R-14: losses are ddp's within rounding; a stopped and resumed run has the numbers of one never stopped."""
    spec = spec_of(strategy, adapter)
    ranks = 1 if strategy == "none" else 2
    whole = make_sharded(spec).attempt(ranks)
    assert whole.codes == [0] * ranks, whole.log
    if strategy in SHARDED:
        assert_close(whole, references[adapter])
    assert_shared(whole, strategy)
    run = make_sharded(spec)
    first = run.attempt(ranks, hook=stop_at(4))
    assert first.codes == [75] * ranks, first.log
    second = run.attempt(ranks, resume=stopped_step(first))
    assert second.codes == [0] * ranks, second.log
    assert steps_of(first, second) == steps_of(whole)
    assert logged(first, second) == logged(whole)
    assert evaluations(first, second) == evaluations(whole)
    assert weights(second) == weights(whole)
    record(Cell("sft", adapter, strategy, ranks), "exact")


def assert_shared(result: Result, strategy: str) -> None:
    """The strategy is the one asked for; where it splits weights, each of two ranks holds half of them (the last part is filled up)."""
    found, *after = [message.facts for message in result.of(Facts)]
    assert found["strategy"] == strategy
    assert [set(more) for more in after] == ([{"parametersPerRank"}] if strategy in SHARDS_WEIGHTS else [])
    for more in after:
        assert 0.5 <= int(more["parametersPerRank"]) / int(found["totalParameters"]) < 0.51


def test_weights_that_were_not_split_are_noticed(make_sharded: MakeRun) -> None:
    """M-01: FSDP that has come to whole copies is refused before the first step, not trained in twice the memory."""
    run = make_sharded(spec_of("fsdp", "lora"))
    run.worker = "tests.exactness.unsharded"
    result = run.attempt(2)
    assert result.codes == [42, 42], result.log
    assert "distributed.strategy: fsdp has left" in failure(result).message


def assert_close(one: Result, other: Result) -> None:
    """Same rows, losses and final weights within rounding."""
    assert [row["samples"] for row in one.metrics.values()] == [row["samples"] for row in other.metrics.values()]
    for name in ("loss", "grad_norm"):
        worst = max(abs(row[name] - other.metrics[step][name]) / max(1, abs(row[name])) for step, row in one.metrics.items())
        assert worst <= TOLERANCE, f"largest difference of a step's {name}: {worst}"
    assert one.final is not None
    assert other.final is not None
    (file,) = one.final.glob("*.safetensors")
    own, theirs = load_file(file), load_file(other.final / file.name)
    assert own.keys() == theirs.keys()
    assert all(own[name].shape == theirs[name].shape for name in own)
    assert max(float((own[name] - theirs[name]).abs().max()) for name in own) <= 1e-3


def test_fsdp_resumes_from_its_float32_weights(make_sharded: MakeRun) -> None:
    """R-14, I-03: under autocast FSDP trains float32 copies of bfloat16 weights; a resumed run goes on with those, not rounded ones."""
    spec = spec_of("fsdp", "full", precision={"dtype": "bfloat16", "bf16": True})
    whole = make_sharded(spec).attempt(2)
    run = make_sharded(spec)
    first = run.attempt(2, hook=stop_at(4))
    second = run.attempt(2, resume=stopped_step(first))
    assert second.codes == [0, 0], second.log
    assert steps_of(first, second) == steps_of(whole)
    assert weights(second) == weights(whole)


def two_ranks(make: MakeRun, strategy: str) -> tuple[Run, Result]:
    """A stopped run on two ranks, and the run."""
    run = make(spec_of(strategy, "lora", training={**SPEC["training"], "batchSize": 2, "gradAccumSteps": 3}, adapter={"dropout": 0.0}))
    return run, run.attempt(2, hook=stop_at(4))


def test_fsdp_may_change_its_ranks(make_sharded: MakeRun) -> None:
    """Begun on 2 ranks, resumed on 3 with the global batch kept: the shards are read anew (OP-10)."""
    run, first = two_ranks(make_sharded, "fsdp")
    whole = make_sharded(run.spec).attempt(2)
    run.edit({"training": {"gradAccumSteps": 2}})
    second = run.attempt(3, resume=stopped_step(first))
    assert second.codes == [0, 0, 0], second.log
    assert_close(replace(second, metrics=first.metrics | second.metrics), whole)


def test_zero_keeps_its_ranks(make_sharded: MakeRun) -> None:
    """Another number of ranks is refused with the number that fits."""
    run, first = two_ranks(make_sharded, "zero2")
    run.edit({"training": {"gradAccumSteps": 2}})
    second = run.attempt(3, resume=stopped_step(first))
    assert second.codes == [42, 42, 42]
    assert "written with distributed.strategy zero2 by 2 ranks, now there are 3" in failure(second).message


def test_offload_on_one_rank(make_sharded: MakeRun) -> None:
    """One rank may use main memory for what its device does not hold, and resumes."""
    spec = spec_of("zero3_offload", "lora")
    whole = make_sharded(spec).attempt(1)
    run = make_sharded(spec)
    first = run.attempt(1, hook=stop_at(4))
    second = run.attempt(1, resume=stopped_step(first))
    assert whole.codes == second.codes == [0], whole.log + second.log
    assert steps_of(first, second) == steps_of(whole)

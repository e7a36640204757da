"""Every method: killed or paused at a step and resumed = never interrupted, difference 0.0; evaluations and final weights included."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from finetune_api.strategies import STRATEGIES
from finetune_trainer.protocol import Warned
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import ROOT, Result, Run, evaluations, failure, steps_of, stop_at, stopped_step, weights
from tests.support.jobs import merge
from tests.support.matrix import ADAPTERS, ENABLED, record
from tests.support.matrix import Cell as Tried

STEPS = 6
SAVE = 3
"""Odd: with two steps per generation the answers of grpo are half used there."""
DATA: Final = ROOT / "examples/data"
FILES: Final = {
    "pretrain": "kubernetes-text.jsonl",
    "dpo": "kubernetes-preferences.jsonl",
    "reward": "kubernetes-preferences.jsonl",
    "kto": "kubernetes-verdicts.jsonl",
    "grpo": "kubernetes-short-names.jsonl",
}
BLOCKS: Final[Mapping[str, Mapping[str, Any]]] = {
    "pretrain": {},
    "dpo": {"dpo": {"lossType": "robust", "labelSmoothing": 0.1}},
    "reward": {"reward": {"centerRewardsCoefficient": 0.01}},
    "kto": {"kto": {"desirableWeight": 1.2}},
    "grpo": {
        "dataset": {"contentMaxLength": 12},
        "grpo": {
            "numIterations": 2,
            "maxNumSeqs": 3,
            "rewardFunctions": [
                {"type": "regex", "pattern": "[aeiou]"},
                {"type": "length", "maxTokens": 6},
                {"type": "python", "source": "configmap://rewards/reward.py", "function": "lower_case", "weight": 0.5},
            ],
        },
    },
}
SHOWN: Final = {
    "pretrain": set[str](),
    "dpo": {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen", "logps/rejected"},
    "reward": {"mean_reward", "margin", "accuracy"},
    "kto": {"kl", "logps/chosen", "logps/rejected"},
    "grpo": {"reward", "reward_std", "rewards/regex/mean", "rewards/lower_case/mean", "kl", "completions/mean_length"},
}
"""Numbers of each method that the metrics file must have."""


class Cell(NamedTuple):
    """One combination."""

    method: str
    adapter: str
    ranks: int
    strategy: str

    def __str__(self) -> str:
        return f"{self.method}-{self.adapter}-{self.strategy}-{self.ranks}"


WHOLE = [
    Cell(method, adapter, ranks, strategy) for method in FILES for adapter in ADAPTERS for ranks, strategy in ((1, "none"), (2, "ddp"))
]
SHARDED = [
    Cell(method, adapter, 2, strategy)
    for method in FILES
    for adapter in ADAPTERS
    for strategy in STRATEGIES
    if strategy not in ("none", "ddp") and (adapter, strategy) != ("qlora", "fsdp")
]
EVERY_METHOD = [
    Cell("pretrain", "full", 1, "none"),
    Cell("dpo", "lora", 2, "ddp"),
    Cell("reward", "lora", 1, "none"),
    Cell("kto", "full", 1, "none"),
    Cell("grpo", "full", 2, "ddp"),
    Cell("dpo", "qlora", 1, "none"),
]


def spec_of(cell: Cell) -> dict[str, Any]:
    """The job of a cell, with an evaluation between the steps, so that one that draws random numbers would show."""
    common = {
        "method": cell.method,
        **ADAPTERS[cell.adapter],
        "dataset": {"uri": f"configmap://rows/{cell.method}", "evalRatio": 0.2, "maxSamples": 0, "packing": cell.method == "pretrain"},
        "training": {"maxSteps": STEPS, "batchSize": 2, "gradAccumSteps": 2, "maxSeqLength": 128, "learningRate": 1e-3},
        "evaluation": {"strategy": "steps", "steps": 2, "batchSize": 2},
        "checkpoint": {"steps": SAVE},
        "distributed": {"strategy": cell.strategy},
    }
    return merge(common, BLOCKS[cell.method])


def job(make_run: MakeRun, cell: Cell, change: Mapping[str, Any] | None = None) -> Run:
    """A run of a cell."""
    run = make_run(merge(spec_of(cell), change or {}), data=DATA / FILES[cell.method])
    run.companions["reward_sources"] = {"configmap://rewards/reward.py": DATA / "reward.py"}
    return run


def after(results: Mapping[int, Any], step: int) -> dict[int, Any]:
    """What came after a step."""
    return {number: value for number, value in results.items() if number > step}


@pytest.mark.matrix
@pytest.mark.parametrize("cell", WHOLE if ENABLED else EVERY_METHOD, ids=str)
def test_resumed_equals_never_interrupted(make_run: MakeRun, cell: Cell) -> None:
    """R-07, B-03 to B-07: per-step loss, norm, rate and the method's own numbers, evaluations and the bytes of the result."""
    run = job(make_run, cell)
    whole = run.attempt(cell.ranks)
    assert whole.codes == [0] * cell.ranks, whole.log
    assert max(whole.metrics) == STEPS
    seen = set().union(*(row["metrics"] for row in whole.metrics.values()))
    assert SHOWN[cell.method] <= seen
    killed = run.attempt(cell.ranks, resume=SAVE)
    assert killed.codes == [0] * cell.ranks, killed.log
    assert_same(whole, killed, after_step=SAVE)
    other = job(make_run, cell, {"checkpoint": {"steps": 1000}})
    first = other.attempt(cell.ranks, hook=stop_at(2))
    step = stopped_step(first)
    second = other.attempt(cell.ranks, resume=step)
    assert second.codes == [0] * cell.ranks, second.log
    assert steps_of(first, second) == steps_of(whole)
    assert evaluations(first, second) == evaluations(whole)
    assert weights(second) == weights(whole)
    record(Tried(cell.method, cell.adapter, cell.strategy, cell.ranks), "exact")


@pytest.mark.matrix
@pytest.mark.skipif(not ENABLED, reason="the grid belongs to make matrix; test_strategies has every strategy with sft")
@pytest.mark.parametrize("cell", SHARDED, ids=str)
def test_shared_out_and_resumed_equals_never_interrupted(make_sharded: MakeRun, cell: Cell) -> None:
    """R-07, R-14: the same where the ranks share weights, gradients or optimizer among them."""
    whole = job(make_sharded, cell).attempt(cell.ranks)
    assert whole.codes == [0] * cell.ranks, whole.log
    run = job(make_sharded, cell)
    first = run.attempt(cell.ranks, hook=stop_at(2))
    second = run.attempt(cell.ranks, resume=stopped_step(first))
    assert second.codes == [0] * cell.ranks, second.log
    assert steps_of(first, second) == steps_of(whole)
    assert evaluations(first, second) == evaluations(whole)
    assert weights(second) == weights(whole)
    record(Tried(cell.method, cell.adapter, cell.strategy, cell.ranks), "exact")


def assert_same(whole: Result, resumed: Result, *, after_step: int) -> None:
    """A resumed attempt does what the whole run did after the step."""
    assert steps_of(resumed) == after(steps_of(whole), after_step)
    assert evaluations(resumed) == after(evaluations(whole), after_step)
    assert weights(resumed) == weights(whole)


def test_a_reward_model_scores_answers(make_run: MakeRun) -> None:
    """H-03: what method reward makes serves as grpo.rewardModel, beside a reference model of its own (H-02)."""
    scorer = job(make_run, Cell("reward", "full", 1, "none"), {"training": {"maxSteps": 1}}).attempt()
    assert scorer.codes == [0], scorer.log
    change = {"grpo": {"rewardFunctions": None, "rewardModel": "s3://a/scorer", "referenceModel": "s3://a/reference", "beta": 0.1}}
    run = job(make_run, Cell("grpo", "lora", 1, "none"), merge(change, {"training": {"maxSteps": 2}}))
    run.companions |= {"reward_dir": scorer.final, "reference_dir": run.model}
    result = run.attempt()
    assert result.codes == [0], result.log
    assert {"reward", "rewards/model/mean", "kl"} <= set(result.metrics[1]["metrics"])


@pytest.mark.parametrize("strategy", ["zero3", "fsdp"])
def test_reference_and_reward_model_are_shared_out(make_run: MakeRun, make_sharded: MakeRun, strategy: str) -> None:
    """H-02, H-03, M-03: both score what they score whole, where the strategy splits the model and has to gather them."""
    change = {
        "grpo": {"rewardFunctions": None, "rewardModel": "s3://a/scorer", "referenceModel": "s3://a/reference", "beta": 0.1},
        "training": {"maxSteps": 1},
        "evaluation": {"strategy": "no"},
    }
    scorer = job(make_run, Cell("reward", "full", 1, "none"), {"training": {"maxSteps": 1}}).attempt()
    seen = []
    for make, name in ((make_run, "ddp"), (make_sharded, strategy)):
        run = job(make, Cell("grpo", "lora", 2, name), change)
        run.companions |= {"reward_dir": scorer.final, "reference_dir": run.model}
        result = run.attempt(2)
        assert result.codes == [0, 0], result.log
        seen.append(result.metrics[1]["metrics"])
    whole, shared = seen
    for value in ("rewards/model/mean", "kl"):
        assert shared[value] == pytest.approx(whole[value], abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "sizes", "cache", "compiles"),
    [
        ({"maxNumSeqs": 3, "enforceEager": False}, [3, 1], "StaticCache", True),
        ({"maxNumSeqs": 2, "enforceEager": True}, [2, 2], "DynamicCache", False),
    ],
)
def test_how_answers_are_generated(
    make_run: MakeRun, tmp_path: Path, settings: dict[str, Any], sizes: list[int], cache: str, *, compiles: bool
) -> None:
    """H-06, H-07: never more answers at once than maxNumSeqs; enforceEager alone decides about a static cache and compiling.

    The answers of a step are all generated, those of an evaluation likewise, whose batch is rounded up to whole groups (F-31).
    """
    change = {"grpo": {**settings, "numIterations": 1}, "training": {"maxSteps": 2}}
    run = job(make_run, Cell("grpo", "lora", 1, "none"), change)
    run.worker, run.environment = "tests.exactness.watched_generation", {"FINETUNE_TEST_CALLS": str(tmp_path / "calls")}
    result = run.attempt()
    assert result.codes == [0], result.log
    calls = [json.loads(line) for line in (tmp_path / "calls").read_text().splitlines()]
    assert [call["batch"] for call in calls[:4]] == sizes * 2
    assert max(call["batch"] for call in calls) == settings["maxNumSeqs"]
    assert {(call["cache"], call["compiled"]) for call in calls} == {(cache, compiles)}
    warnings = {warning.condition: warning.message for warning in result.of(Warned)}
    assert "rounded up to 4" in warnings["EvaluationBatchRounded"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"rewardFunctions": [{"type": "exactMatch", "column": "absent"}]},
            "grpo.rewardFunctions[0].column: the rows have no column absent",
        ),
        ({"rewardFunctions": [{"type": "regex", "pattern": "("}]}, "grpo.rewardFunctions[0].pattern"),
    ],
)
def test_refusals(make_run: MakeRun, change: Mapping[str, Any], message: str) -> None:
    """What cannot be trained is named, as an error of the user's."""
    result = job(make_run, Cell("grpo", "lora", 1, "none"), {"grpo": change}).attempt()
    assert result.codes == [42], result.log
    assert failure(result).failure_class == "ConfigurationError"
    assert message in failure(result).message

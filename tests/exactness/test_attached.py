"""An existing adapter to go on from (adapter.attach): its shape and weights, exact on resume, the reference of what comes after."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, Final

import pytest
from safetensors.torch import load_file, save_file

from finetune_api.contract.failures import FailureClass
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import ROOT, Run, failure, steps_of, stop_at, stopped_step, weights
from tests.support.jobs import merge

FIRST: Final[dict[str, Any]] = {
    "adapter": {"rank": 3, "alpha": 6, "dropout": 0.1, "targetModules": ["q_proj", "down_proj"]},
    "training": {"maxSteps": 6, "learningRate": 5e-3},
}
NEXT: Final[dict[str, Any]] = {"adapter": {"attach": {"uri": "s3://finetune/first/final"}}, "training": {"maxSteps": 6}}
PREFERENCES: Final = {
    "method": "dpo",
    "dataset": {"uri": "configmap://rows/dpo"},
    "dpo": {"beta": 0.1},
    "checkpoint": {"steps": 2},
}


@pytest.fixture(scope="module")
def first(make_run: MakeRun) -> Path:
    """The final adapter of another job."""
    done = make_run(FIRST).attempt()
    assert done.final is not None, done.log
    return done.final


def attached(run: Run, adapter: Path) -> Run:
    """A job that the supervisor has fetched the adapter for."""
    run.companions |= {"attached_dir": adapter, "peft_config": adapter / "adapter_config.json"}
    return run


def test_goes_on_from_the_adapter(make_run: MakeRun, first: Path) -> None:
    """R-12: stopped and resumed equals never stopped; the shape is the adapter's, and the first loss shows its weights."""
    whole = attached(make_run(NEXT), first).attempt()
    run = attached(make_run(NEXT), first)
    begun = run.attempt(hook=stop_at(3))
    resumed = run.attempt(resume=stopped_step(begun))
    assert whole.codes == resumed.codes == [0], resumed.log
    assert steps_of(begun, resumed) == steps_of(whole)
    assert weights(resumed) == weights(whole)
    assert whole.final is not None
    shape = json.loads((whole.final / "adapter_config.json").read_text())
    assert (shape["r"], shape["lora_alpha"], shape["lora_dropout"], set(shape["target_modules"])) == (3, 6, 0.1, {"q_proj", "down_proj"})
    fresh = make_run(merge(FIRST, {"training": {"learningRate": 2e-3}})).attempt()
    assert whole.metrics[1]["loss"] < fresh.metrics[1]["loss"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_the_adapter_is_the_reference(make_run: MakeRun, first: Path, ranks: int) -> None:
    """Preferences after a first stage: the model begins as its own reference (loss ln 2), and is compared with it after a resume too."""
    data = ROOT / "examples/data/kubernetes-preferences.jsonl"
    spec = merge(NEXT, PREFERENCES)
    still = {"adapter_config.json": json.loads((first / "adapter_config.json").read_text()) | {"lora_dropout": 0.0}}
    adapter = shutil.copytree(first, make_run(spec, data=data).directory / "adapter")
    (adapter / "adapter_config.json").write_text(json.dumps(still["adapter_config.json"]))
    whole = attached(make_run(spec, data=data), adapter).attempt(ranks)
    assert whole.codes == [0] * ranks, whole.log
    assert whole.metrics[1]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert whole.metrics[6]["loss"] < whole.metrics[1]["loss"]
    assert not list(whole.checkpoints[2].glob("ref/*")), "the reference lies in no checkpoint"
    run = attached(make_run(spec, data=data), adapter)
    begun = run.attempt(ranks, hook=stop_at(3))
    resumed = run.attempt(ranks, resume=stopped_step(begun))
    assert steps_of(begun, resumed) == steps_of(whole)
    assert weights(resumed) == weights(whole)


def test_sharded_weights(make_sharded: MakeRun, first: Path) -> None:
    """Strategies that split the weights begin with the same ones."""
    losses = {}
    for strategy in ("ddp", "zero3", "fsdp"):
        done = attached(make_sharded(merge(NEXT, {"distributed": {"strategy": strategy}, "training": {"maxSteps": 2}})), first).attempt(2)
        assert done.codes == [0, 0], done.log
        losses[strategy] = done.metrics[1]["loss"]
    assert losses["zero3"] == pytest.approx(losses["ddp"], abs=1e-5)
    assert losses["fsdp"] == pytest.approx(losses["ddp"], abs=1e-5)


@pytest.mark.parametrize(
    ("name", "said"),
    [("smaller", "is [3, 32] in the adapter and [3, 64] in the model"), ("lacking", "missing in the adapter")],
)
def test_an_adapter_of_another_model(make_run: MakeRun, first: Path, tmp_path: Path, name: str, said: str) -> None:
    """Refused, the matrix and both sizes named."""
    other = shutil.copytree(first, tmp_path / "other")
    tensors = load_file(other / "adapter_model.safetensors")
    key = next(key for key in sorted(tensors) if "q_proj.lora_A" in key)
    values = tensors.pop(key)
    if name == "smaller":
        tensors[key] = values[:, :32].contiguous()
    save_file(tensors, other / "adapter_model.safetensors")
    ended = attached(make_run(NEXT), other).attempt()
    assert ended.codes == [42], ended.log
    assert failure(ended).failure_class == FailureClass.MODEL
    assert said in failure(ended).message
    assert "adapter.attach.uri" in failure(ended).message

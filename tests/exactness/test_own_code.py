"""A model with modelling code of its own beside the weights (model.trustRemoteCode)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from finetune_api.contract.failures import FailureClass
from tests.exactness.conftest import MakeRun
from tests.exactness.harness import failure, steps_of, stop_at, stopped_step, weights
from tests.support.own_code import write_own

LOADS: Final = """
import json, sys
import torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], trust_remote_code=True)
with torch.no_grad():
    print(json.dumps([type(model).__name__, float(model(torch.tensor([[1, 2, 3]])).logits.sum())]))
"""
TRUSTED: dict[str, Any] = {"model": {"trustRemoteCode": True}, "training": {"maxSteps": 6}}


@pytest.fixture(scope="module")
def own(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model's directory."""
    return write_own(model, tmp_path_factory.mktemp("own") / "model")


def test_exact_with_own_code(make_run: MakeRun, own: Path, model: Path) -> None:
    """R-08: stopped and resumed equals never stopped, and it is the model's own code that ran."""
    whole = make_run(TRUSTED, model_dir=own).attempt()
    run = make_run(TRUSTED, model_dir=own)
    first = run.attempt(hook=stop_at(3))
    second = run.attempt(resume=stopped_step(first))
    assert whole.codes == second.codes == [0], second.log
    assert steps_of(first, second) == steps_of(whole)
    assert weights(second) == weights(whole)
    other = make_run({"training": {"maxSteps": 6}}, model_dir=model).attempt()
    assert other.metrics[1]["loss"] != whole.metrics[1]["loss"]


def test_a_whole_model_keeps_its_code(make_run: MakeRun, own: Path, tmp_path: Path) -> None:
    """The final model loads again in a fresh process without ours (W-09)."""
    done = make_run({**TRUSTED, "adapter": {"type": "full"}}, model_dir=own).attempt()
    assert done.final is not None, done.log
    program = [sys.executable, "-c", LOADS, str(done.final)]
    loaded = subprocess.run(
        program, check=True, capture_output=True, text=True, cwd=tmp_path, env={"HF_MODULES_CACHE": str(tmp_path), "OMP_NUM_THREADS": "1"}
    )
    assert json.loads(loaded.stdout)[0] == "OwnForCausalLM"


def test_refused_without_trust(make_run: MakeRun, own: Path, model: Path) -> None:
    """Nothing of it is run; the field and the way out are named."""
    spec = {"training": {"maxSteps": 6}}
    run = make_run(spec, model_dir=model)  # preparing rows would refuse it before
    run.model = own
    ended = run.attempt()
    assert ended.codes == [42], ended.log
    assert failure(ended).failure_class == FailureClass.CONFIGURATION
    assert "model.trustRemoteCode" in failure(ended).message

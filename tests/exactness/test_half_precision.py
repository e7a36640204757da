"""Training in float16: the gradient scaler's state is part of a checkpoint (I-02)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.exactness.conftest import MakeRun
from tests.exactness.half_precision import FIRST_SCALE, GROWTH_STEPS
from tests.exactness.harness import ROOT, Run, steps_of, stop_at, stopped_step, weights

SPEC: dict[str, Any] = {"adapter": {"dropout": 0.1}, "checkpoint": {"steps": 4}, "resources": {"memoryProbe": True}}


def scaler_of(checkpoint: Path) -> dict[str, Any]:
    return dict(torch.load(checkpoint / "scaler.pt", weights_only=True))


def half(make_run: MakeRun) -> Run:
    run = make_run(SPEC)
    run.worker = "tests.exactness.half_precision"
    return run


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_scale_found_is_not_looked_for_again(make_run: MakeRun, ranks: int) -> None:
    """Updates are skipped while the scale is too large, and said so; stopped between two of them and resumed, the difference is 0.0."""
    run = half(make_run)
    whole = run.attempt(ranks)
    assert whole.codes == [0] * ranks, whole.log
    skipped = [step for step, line in whole.metrics.items() if line["grad_norm"] is None]
    assert skipped, "the first scale is too small to overflow"
    part = run.attempt(ranks, hook=stop_at(5))
    at = stopped_step(part)
    assert min(skipped) < at < max(skipped), "the scale is to be found before the stop, and to grow too large again after it"
    found = scaler_of(part.checkpoints[at])
    assert found["scale"] != FIRST_SCALE
    assert found["_growth_tracker"] in range(GROWTH_STEPS)
    rest = run.attempt(ranks, resume=at)
    assert rest.codes == [0] * ranks, rest.log
    assert steps_of(part, rest) == steps_of(whole)
    assert weights(rest) == weights(whole)
    assert scaler_of(rest.checkpoints[8]) == scaler_of(whole.checkpoints[8])


@pytest.mark.parametrize(("method", "rows"), [("sft", "kubernetes-sft.jsonl"), ("dpo", "kubernetes-preferences.jsonl")])
def test_what_is_trained_over_a_4bit_base_is_float32(make_run: MakeRun, method: str, rows: str) -> None:
    """I-02, B-10: TRL casts adapters over such a base to bfloat16, whose gradients CUDA's scaler cannot unscale."""
    dataset = {"uri": f"configmap://rows/{method}", "maxSamples": 48}
    run = make_run({**SPEC, "method": method, "quantization": {"mode": "4bit"}, "dataset": dataset}, data=ROOT / "examples/data" / rows)
    run.worker = "tests.exactness.half_precision"
    whole = run.attempt()
    assert whole.codes == [0], whole.log
    assert {values.dtype for values in load_file(whole.checkpoints[4] / "adapter_model.safetensors").values()} == {torch.float32}
    rest = run.attempt(resume=4)
    assert rest.codes == [0], rest.log
    assert weights(rest) == weights(whole)

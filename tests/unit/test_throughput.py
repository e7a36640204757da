"""The benchmark of throughput: its models, what MFU is a share of, and its rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM

from benchmarks import throughput
from benchmarks.shapes import public_config
from benchmarks.sides import Measured
from benchmarks.throughput import Peak, find_peak, rows_of

PLAIN = Measured(
    steps=[9.0] * 3 + [2.0] * 4, stalls=[], cpu=[], trainable=10, checkpoint_bytes=[], tokens=[100] * 7, peak_bytes=2**20, parameters=100
)
OURS = replace(PLAIN, steps=[9.0] * 3 + [1.0] * 4, parameters=0, peak_bytes=2**21)
PEAK = Peak(84000.0, "a test")


@pytest.mark.parametrize(("shape", "billions"), [("1b", 1.2358), ("8b", 8.0303)])
def test_the_shapes_have_the_sizes_of_the_public_models(shape: str, billions: float) -> None:
    """Parameters as the cards of Llama-3.2-1B and Llama-3.1-8B tell them."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(public_config(shape))
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e9, 4) == billions


def test_every_row_has_its_figures_on_any_device() -> None:
    """Warm-up steps do not count; 4 FLOPs a parameter and 2 a trained one and token; a side that went without a part is marked."""
    fell_back = replace(OURS, missing="fused layer kernels: the kernels are made for GPUs")
    rows = rows_of([("plain TRL script", [PLAIN]), ("standard", [OURS]), ("optimized", [fell_back])], PEAK)
    assert rows == [
        ("plain TRL script", "50", "1.00 (1.00-1.00)", "25.0%", "1", ""),
        ("standard", "100", "2.00 (2.00-2.00)", "50.0%", "2", ""),
        ("optimized", "100", "2.00 (2.00-2.00)", "50.0%", "2", "yes: without fused layer kernels: the kernels are made for GPUs"),
    ]


@pytest.mark.parametrize(
    ("other", "said"), [(replace(OURS, trainable=11), "do not train the same parameters"), (replace(OURS, peak_bytes=0), "was not read")]
)
def test_sides_that_cannot_be_compared_are_refused(other: Measured, said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        rows_of([("plain TRL script", [PLAIN]), ("standard", [other])], PEAK)


def test_the_peak_is_the_data_sheets_else_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU that is not in the table is measured in 16 bits, a CPU in float32 with the training's threads."""
    monkeypatch.setattr(throughput, "measured_peak", lambda device, dtype: 7e12 if (device, dtype) == ("cuda", torch.bfloat16) else 7e9)
    assert find_peak("NVIDIA H200", 1).flops == 989e12
    assert find_peak("Somebody's GPU", 1) == Peak(7e12, "7 TFLOP/s, measured with bfloat16 matrices on Somebody's GPU")
    threads = torch.get_num_threads()
    assert find_peak(None, 1) == Peak(7e9, "7 GFLOP/s, measured with float32 matrices on 1 thread")
    assert torch.get_num_threads() == threads

"""What a model that cannot be loaded is called."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.methods import Request
from finetune_trainer.worker.methods.reference import load_reference
from finetune_trainer.worker.model import load_model
from finetune_trainer.worker.precision import Device, Formats
from finetune_trainer.worker.strategies import sharing_of

NO_LIBRARY = ImportError("Using `bitsandbytes` 4-bit quantization requires bitsandbytes: `pip install -U bitsandbytes>=0.46.1`")
NO_DEVICE = RuntimeError("None of the available devices `{'xpu'}` are supported by the bitsandbytes version you have installed")


@pytest.mark.parametrize(
    ("error", "is_quantized", "expected"),
    [
        (NO_LIBRARY, True, FailureClass.QUANTIZATION_UNAVAILABLE),
        (NO_DEVICE, True, FailureClass.QUANTIZATION_UNAVAILABLE),
        (NO_LIBRARY, False, FailureClass.MODEL),
        (ImportError("No module named 'sentencepiece'"), True, FailureClass.MODEL),
        (OSError("config.json is missing"), True, FailureClass.MODEL),
    ],
)
def test_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, is_quantized: bool, expected: FailureClass) -> None:
    """B-10: a library that is missing is no fault of the model; what it says reaches the user."""

    def fail(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", fail)
    formats = Formats("float32", "float32", "no", tf32=False, is_quantized=is_quantized)
    with pytest.raises(TrainerError) as caught:
        load_model(tmp_path, formats, Device("cpu"), placed=False)
    assert caught.value.failure_class is expected
    assert str(error) in caught.value.message
    assert ("quantization.mode" in caught.value.message) == (expected is FailureClass.QUANTIZATION_UNAVAILABLE)


class LoadedError(Exception):
    """Nothing is loaded."""


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Places that models were loaded to, on a GPU that is not there."""
    seen: list[Any] = []

    def load(*_args: Any, device_map: Any = None, **_options: Any) -> None:
        seen.append(device_map)
        raise LoadedError

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", load)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    return seen


@pytest.mark.parametrize(("placed", "is_quantized", "expected"), [(True, False, {"": 1}), (True, True, {"": 1}), (False, True, None)])
def test_places(tmp_path: Path, places: list[Any], placed: bool, is_quantized: bool, expected: object) -> None:
    """M-03: transformers refuses a place under ZeRO 3, and needs none for a base in 4 bits."""
    with pytest.raises(LoadedError):
        load_model(tmp_path, Formats("bfloat16", "bfloat16", "no", False, is_quantized), Device("gpu"), placed=placed)
    assert places == [expected]


@pytest.mark.parametrize(("strategy", "expected"), [("ddp", {"": 1}), ("zero2", {"": 1}), ("zero3", None), ("zero3_offload", None)])
def test_a_reference_goes_where_the_model_goes(tmp_path: Path, places: list[Any], strategy: str, expected: object) -> None:
    """M-03: the reference model is split as the model is, so that it is given no place either."""
    session = SimpleNamespace(plan=SimpleNamespace(reference_dir=tmp_path), sharing=sharing_of(cast("Any", strategy)))
    material: Any = SimpleNamespace(model=None)
    request = Request(cast("Any", session), cast("Any", None), material, Formats("bfloat16", "bfloat16", "no", False), Device("gpu"), None)
    with pytest.raises(LoadedError):
        load_reference(request, "s3://models/reference")
    assert places == [expected]

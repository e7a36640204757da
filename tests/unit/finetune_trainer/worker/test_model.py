"""What a model that cannot be loaded is called."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.model import load_model
from finetune_trainer.worker.precision import Device, Formats

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

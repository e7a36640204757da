"""An 8-bit optimizer that cannot be had is named before anything is loaded."""

from __future__ import annotations

import sys

import pytest
import torch
from bitsandbytes.optim import AdamW8bit

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.eight_bits import check_optimizer
from finetune_trainer.worker.precision import Device
from tests.unit.finetune_trainer.worker.conftest import MakeSpec

NO_BUILD = "Attempted to use bitsandbytes native library functionality but it's not available."


@pytest.mark.parametrize("optimizer", ["adamw_torch", "adamw_8bit", "paged_adamw_8bit", "adafactor", "sgd"])
def test_where_the_library_works_nothing_happens(make_spec: MakeSpec, optimizer: str) -> None:
    """F-14, F-30: the step taken on trial draws nothing at random, so that the training that follows is the same."""
    before = torch.get_rng_state()
    check_optimizer(make_spec(training={"optimizer": optimizer}), Device("cpu"))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("is_missing", [True, False])
def test_without_the_library_or_its_build(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, is_missing: bool) -> None:
    """F-14, I-07: missing, or (as bitsandbytes does without a build for the device) failing at the first step; others do not need it."""
    if is_missing:
        monkeypatch.setitem(sys.modules, "bitsandbytes.optim", None)
    else:

        def fail(_self: object) -> None:
            raise RuntimeError(NO_BUILD)

        monkeypatch.setattr(AdamW8bit, "step", fail)
    check_optimizer(make_spec(training={"optimizer": "adamw_torch"}), Device("cpu"))
    with pytest.raises(TrainerError) as caught:
        check_optimizer(make_spec(training={"optimizer": "adamw_8bit"}), Device("cpu"))
    assert caught.value.failure_class is FailureClass.QUANTIZATION_UNAVAILABLE
    assert caught.value.message.startswith("training.optimizer: adamw_8bit cannot be had here")
    assert is_missing or NO_BUILD in caught.value.message

"""Whatever ends a rank has a class and a sentence."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from finetune_api.contract.failures import REACTIONS, FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.failures import Probed, as_trainer_error, memory_lever, out_of_memory
from tests.unit.finetune_trainer.worker.conftest import MakeSpec


@pytest.mark.parametrize(
    ("error", "failure_class", "code"),
    [
        (TrainerError(FailureClass.DATA, "row 3"), FailureClass.DATA, 42),
        (
            RuntimeError("[../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer"),
            FailureClass.PEER_LOST,
            76,
        ),
        (torch.distributed.DistBackendError("NCCL error: remote process exited"), FailureClass.PEER_LOST, 76),
        (torch.distributed.DistStoreError("wait timeout after 1800000ms"), FailureClass.PEER_LOST, 76),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), FailureClass.UNKNOWN, 1),
        (MemoryError(), FailureClass.OOM_KILLED, 137),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), FailureClass.OOM_KILLED, 137),
        (KeyboardInterrupt(), FailureClass.UNKNOWN, 1),
    ],
)
def test_classes(error: BaseException, failure_class: FailureClass, code: int) -> None:
    """By type, else by what torch writes."""
    failure = as_trainer_error(error, None)
    assert failure.failure_class is failure_class
    assert failure.exit_code == code == REACTIONS[failure_class].exit_code


def test_gpu_memory(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured bytes and the first lever (F-04)."""

    class Properties:
        total_memory = 80 * 2**30

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _index: Properties)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 79 * 2**30)
    failure = as_trainer_error(torch.OutOfMemoryError("CUDA out of memory"), make_spec())
    assert failure.failure_class is FailureClass.CUDA_OUT_OF_MEMORY
    said = "79.0 GiB were in use at the peak, the device has 80.0 GiB; set training.batchSize to 1 and training.gradAccumSteps to 8"
    assert said in failure.message
    probed = out_of_memory(make_spec(), Probed(rows=2, tokens=4096, estimated=90 * 2**30))
    assert "by the longest batch, 2 rows of up to 4096 tokens, before the first step: 79.0 GiB" in probed.message
    assert "about 90.0 GiB were expected; set training.batchSize" in probed.message


@pytest.mark.parametrize(
    ("blocks", "lever"),
    [
        ({"training": {"batchSize": 6, "gradAccumSteps": 2}}, "set training.batchSize to 3 and training.gradAccumSteps to 4"),
        ({"training": {"batchSize": 5, "gradAccumSteps": 2}}, "set training.batchSize to 2 and training.gradAccumSteps to 5"),
        ({"training": {"batchSize": 7, "gradAccumSteps": 1}}, "set training.batchSize to 1 and training.gradAccumSteps to 7"),
        ({"training": {"batchSize": 1, "gradientCheckpointing": False}}, "set training.gradientCheckpointing to true"),
        ({"training": {"batchSize": 1}, "adapter": {"type": "full"}}, "set training.optimizer to adamw_8bit"),
        ({"training": {"batchSize": 1, "maxSeqLength": 2048}}, "lower training.maxSeqLength"),
        ({"training": {"batchSize": 1}, "quantization": {"mode": "none"}}, "set quantization.mode to 4bit"),
        ({"training": {"batchSize": 1}}, "use a GPU with more memory"),
    ],
)
def test_levers(make_spec: MakeSpec, blocks: dict[str, Any], lever: str) -> None:
    """What changes the training least comes first; the global batch stays."""
    assert memory_lever(make_spec(**blocks)) == lever

"""From any exception to a failure class and one sentence."""

from __future__ import annotations

import re
import resource
from typing import Final, NamedTuple

import torch
import torch.distributed as dist

from finetune_api.contract.failures import FailureClass
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.loader import LoaderProcessError

PEER_SIGNS: Final = re.compile(
    r"gloo|nccl|connection (closed|reset|refused)|broken pipe|socket timeout|DDP expects same model", re.IGNORECASE
)
"""What torch says when a collective fails because of another rank; gloo raises plain RuntimeErrors."""
GIB: Final = 2**30
KIB: Final = 2**10


class Probed(NamedTuple):
    """The batch of the start-up probe."""

    rows: int
    tokens: int
    """Of its longest row."""
    estimated: int | None
    """Bytes that preflight's formula expects on one GPU; None where it does not know the model."""


def as_trainer_error(error: BaseException, spec: FineTuneJobSpec | None) -> TrainerError:
    """Classify what ended this rank; ``spec`` is known once the config was read, and names the lever for memory."""
    if isinstance(error, TrainerError):
        return error
    if isinstance(error, LoaderProcessError):
        return error.original
    if isinstance(error, torch.OutOfMemoryError):
        return out_of_memory(spec)
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in str(error):
        return TrainerError(FailureClass.OOM_KILLED, f"main memory is exhausted: {first_line(error)}")
    if isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and PEER_SIGNS.search(str(error))):
        return TrainerError(FailureClass.PEER_LOST, f"a peer went away: {first_line(error)}")
    return TrainerError(FailureClass.UNKNOWN, f"{type(error).__name__}: {first_line(error)}")


def first_line(error: BaseException) -> str:
    """First line of an error's text, at most 300 characters."""
    return (str(error).strip().splitlines() or [""])[0][:300]


def out_of_memory(spec: FineTuneJobSpec | None, probed: Probed | None = None) -> TrainerError:
    """Say what was measured, what was expected of the batch that was ``probed``, and what helps first."""
    lever = memory_lever(spec) if spec is not None else "use a GPU with more memory"
    where = f" by the longest batch, {probed.rows} rows of up to {probed.tokens} tokens, before the first step" if probed else ""
    expected = f", about {probed.estimated / GIB:.1f} GiB were expected" if probed is not None and probed.estimated is not None else ""
    return TrainerError(FailureClass.CUDA_OUT_OF_MEMORY, f"GPU memory is exhausted{where}: {_measured()}{expected}; {lever}")


def _measured() -> str:
    if not torch.cuda.is_available():
        return f"the process had {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KIB / GIB:.1f} GiB of main memory at the peak"
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    peak = torch.cuda.max_memory_allocated()
    return f"{peak / GIB:.1f} GiB were in use at the peak, the device has {total / GIB:.1f} GiB"


def memory_lever(spec: FineTuneJobSpec) -> str:
    """The change that saves most memory and changes the training least."""
    training = spec.training
    if training.batch_size > 1:
        rows = training.batch_size * training.grad_accum_steps
        smaller = max(size for size in range(1, training.batch_size // 2 + 1) if rows % size == 0)
        return f"set training.batchSize to {smaller} and training.gradAccumSteps to {rows // smaller}"
    if not training.gradient_checkpointing:
        return "set training.gradientCheckpointing to true"
    if training.optimizer == "adamw_torch" and spec.adapter.type == "full":
        return "set training.optimizer to adamw_8bit"
    if training.max_seq_length == 0 or training.max_seq_length > 512:
        return "lower training.maxSeqLength"
    if spec.adapter.type == "lora" and spec.quantization.mode == "none" and spec.distributed.strategy != "fsdp":
        return "set quantization.mode to 4bit"
    return "use a GPU with more memory"

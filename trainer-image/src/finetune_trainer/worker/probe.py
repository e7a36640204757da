"""The start-up probe: the longest batch there can be goes through forward, backward and optimizer before the first step.

Memory that will not do shows within a minute instead of at the first long row of a night. Nothing of it remains: moments are made with
gradients and a rate of 0 and dropped again, random states and buffers are put back, so that a probed run has the very numbers of one that
was not.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from finetune_api.strategies import ZERO
from finetune_trainer.estimate.memory import Plan, estimate_memory
from finetune_trainer.estimate.shape import read_shape
from finetune_trainer.prepare.table import lengths
from finetune_trainer.sources.model_directory import local_files
from finetune_trainer.worker.facts import parameter_counts
from finetune_trainer.worker.failures import Probed, out_of_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from finetune_trainer.worker.loader import Row
    from finetune_trainer.worker.session import Session
    from finetune_trainer.worker.trainer import FineTuneTrainer

log = logging.getLogger(__name__)

METHODS: Final = frozenset({"sft", "pretrain"})
"""Methods that probe: the trainers of others keep state of their own between batches, which is not proved to come back."""
ROPE_STATE: Final = "max_seq_len_cached"
"""How the names end under which rotary embeddings that grow with the text remember the longest one, beside their buffers."""


def is_due(session: Session, args: Any) -> bool:
    """Whether this start probes: on GPUs unless the job says otherwise.

    DeepSpeed joins backward and step and keeps counts of both, so that nothing could be taken back. A compiler would specialise on the
    probe's shapes, and other kernels give other last bits.
    """
    resources = session.spec.resources
    wanted = resources.memory_probe if resources.memory_probe is not None else resources.device == "gpu"
    return wanted and session.sharing.name not in ZERO and session.spec.method in METHODS and not args.torch_compile


def probe(session: Session, trainer: FineTuneTrainer) -> None:
    """Run the longest rows as one micro-batch and leave no trace. Collective where ranks share weights.

    Raises :class:`TrainerError` (CudaOutOfMemory) with measured and estimated bytes and the change that helps first.
    """
    size, later = session.spec.training.batch_size, trainer.later_rows
    if later is not None:
        rows, longest = later.longest_rows(size), later.longest
    else:
        tokens = lengths(trainer.train_dataset)
        chosen = longest_rows(tokens, size)
        rows, longest = trainer.rows_class(trainer.train_dataset).__getitems__(chosen), int(tokens[chosen].max())
    probed = Probed(len(rows), longest, expected_bytes(session, trainer, longest))
    started = time.monotonic()
    try:
        with untouched(trainer.model):
            _pass(session, trainer, rows)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(session.spec, probed) from error
    peak = f", peak {torch.cuda.max_memory_allocated()} bytes" if torch.cuda.is_available() else ""
    log.info("probe: %d rows of up to %d tokens in %.1f s%s", probed.rows, probed.tokens, time.monotonic() - started, peak)


def longest_rows(tokens: NDArray[np.int64], batch_size: int) -> list[int]:
    """Return the rows of the largest batch there could be; a small data set is repeated."""
    order = np.argsort(tokens, kind="stable")[::-1]
    return [int(order[index % len(order)]) for index in range(batch_size)]


def expected_bytes(session: Session, trainer: FineTuneTrainer, longest_row: int) -> int | None:
    """Return what preflight's formula says of one GPU and rows of so many tokens; None for a model whose files do not tell their shape."""
    shape = read_shape(local_files(session.plan.model_dir))
    if shape is None:
        return None
    trainable, _ = parameter_counts(trainer.model, session.sharing)
    is_half = trainer.model.dtype in (torch.bfloat16, torch.float16)
    is_quantized = bool(getattr(trainer.model, "is_loaded_in_4bit", False))
    plan = Plan(trainable, is_quantized, is_half, session.sharing.name, session.rank.world_size)
    return estimate_memory(session.spec, shape, plan, longest_row=longest_row).total


def _pass(session: Session, trainer: FineTuneTrainer, rows: list[Row]) -> None:
    model = trainer.model_wrapped
    inputs = trainer.data_collator(rows)
    trainer.current_gradient_accumulation_steps = session.spec.training.grad_accum_steps
    if session.sharing.name == "ddp":
        # Whole copies need no peer here, and DDP chooses its buckets in the first pass that is synchronised: that is the first step's.
        with trainer.accelerator.no_sync(model):
            trainer.training_step(model, inputs)
    else:
        trainer.training_step(model, inputs)
    trainer.forget_micro_batch()
    optimizer = trainer.plain_optimizer
    # A resumed run has its moments already. Paged ones can leave the GPU, so that they never exhaust it.
    if not optimizer.state and not getattr(optimizer, "is_paged", False):
        make_moments(optimizer)
        optimizer.state.clear()
    optimizer.zero_grad(set_to_none=True)
    model.zero_grad(set_to_none=True)


def make_moments(optimizer: torch.optim.Optimizer) -> None:
    """Have the optimizer take its memory without moving a weight: gradients and rate are 0, and no weight decays at a rate of 0."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
        for parameter in group["params"]:
            if parameter.grad is not None:
                parameter.grad.zero_()
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


@contextmanager
def untouched(model: torch.nn.Module) -> Iterator[None]:
    """Put back every random state and whatever modules keep beside their parameters."""
    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()  # noqa: NPY002  # the state dropout may be drawn from
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    buffers = [(module, name, buffer, buffer.clone()) for module, name, buffer in _buffers(model)]
    longest = [(module, _rope_state(module)) for module in model.modules()]
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.random.set_rng_state(states[2])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        for module, name, buffer, content in buffers:
            buffer.copy_(content)
            module._buffers[name] = buffer  # noqa: SLF001  # register_buffer would make it persistent
        for module, state in longest:
            for name in _rope_state(module).keys() - state.keys():
                delattr(module, name)
            vars(module).update(state)


def _buffers(model: torch.nn.Module) -> Iterator[tuple[torch.nn.Module, str, torch.Tensor]]:
    for module in model.modules():
        for name, buffer in module._buffers.items():  # noqa: SLF001  # named_buffers() tells no owner
            if buffer is not None:
                yield module, name, buffer


def _rope_state(module: torch.nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name.endswith(ROPE_STATE)}

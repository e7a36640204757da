"""How long a training will take, from what it computes: rough, and the same for operator and command line.

Optimizer steps x rows x tokens x 6 FLOPs for each parameter and token (8 where the weights themselves are trained), at a share of what the
GPUs' arithmetic gives.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from finetune_api.length import longest_sequence, padded_length
from finetune_api.models.spec import FineTuneJobSpec

FLOPS_OF_ADAPTER: Final = 6
FLOPS_OF_ALL: Final = 8
PASSES: Final = {"sft": 1.0, "pretrain": 1.0, "reward": 2.0, "dpo": 3.0, "kto": 1.5}
"""Method -> how many times a row is computed, next to sft; not of methods that generate."""


class Work(NamedTuple):
    """What is trained, and where."""

    steps: int
    """Optimizer steps."""
    ranks: int
    gpus: int
    parameters: int
    """Of the base model."""
    tokens: int | None
    """Of a row, where they were counted: 95 % of the rows have no more, and shorter ones are padded."""
    longest: int | None = None
    """Tokens of the longest sequence, where more than the job is known of it: the model's context, or the rows."""


def training_seconds(spec: FineTuneJobSpec, work: Work, *, tflops: int, utilization: float) -> float | None:
    """Seconds the training takes on all GPUs; None for a method, or rows of unknown length, of which it cannot be said.

    ``tflops``: of one GPU. ``utilization``: share of them that training uses.
    """
    if spec.method not in PASSES:
        return None
    length = padded_length(spec, work.longest or longest_sequence(spec, None), work.tokens)
    if length is None:
        return None
    rows = spec.training.batch_size * spec.training.grad_accum_steps * max(work.ranks, 1)
    flops = FLOPS_OF_ALL if spec.adapter.type == "full" else FLOPS_OF_ADAPTER
    total = work.steps * rows * length * flops * work.parameters * PASSES[spec.method]
    return total / (max(work.gpus, 1) * tflops * 1e12 * utilization)

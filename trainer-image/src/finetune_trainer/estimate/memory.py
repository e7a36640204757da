"""GPU memory of a training, term by term.

The formula is that of the project's research on transformers 5 and TRL 1, checked there against published peaks (within 6 %, unfused and
compiled runs apart). All terms are bytes on one GPU; A is what a token keeps in one layer for the backward pass.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final

from finetune_api.length import LONG, longest_sequence, padded_length
from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.strategies import SHARDS_WEIGHTS, Strategy
from finetune_trainer.estimate.shape import ModelShape

GIB: Final = 2**30
QUANTIZED_STATE: Final = 2.0
"""Bytes per trained parameter of an 8-bit optimizer's two moments, on the GPU or off it."""
NF4_BYTES: Final = 0.516
"""Bytes per 4-bit parameter, its doubly quantised scales included."""
CONTEXT_BYTES: Final = 750 * 10**6
"""CUDA context, libraries' work space, NCCL's buffers."""
FRAGMENTATION: Final = 1.08
"""What the allocator loses on buffers that come and go."""
LORA_ACTIVATIONS: Final = 1.05
DROPOUT_ACTIVATIONS: Final = 1.79
"""More is kept per token with an adapter, and nearly twice as much when its dropout is above 0 (measured: 54 and 92 bytes x hidden
where the formula gives 51.5)."""
HEAD_TOKENS: Final = 4096
HEAD_VOCABULARY: Final = 32768
"""Tile of the fused head: logits never exist for more tokens and words at once."""
OFFLOADED_STATE: Final = 16
"""Bytes of main memory per trained parameter that an offload strategy keeps: float32 weight, gradient and two moments."""
OFFLOAD_BUFFERS: Final = 1.5
"""What DeepSpeed needs beside that, pinned buffers among it: the factor of its own estimate."""
PROCESS_BYTES: Final = 3 * GIB
"""Main memory of a rank's program with its libraries and loaders."""
OPTIMIZER_STATES: Final = {"adamw_torch": 2.0, "adamw_8bit": 0.5, "paged_adamw_8bit": 0.0, "adafactor": 0.05, "sgd": 0.0}
"""Values of optimizer state per trained parameter, counted in the format it is trained in; paged ones can leave the GPU."""


@dataclass(frozen=True)
class Footprint:
    """Bytes on one GPU."""

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        """Sum of all terms."""
        return sum(self.terms().values())

    def terms(self) -> dict[str, int]:
        """Bytes by term."""
        return {term.name: int(getattr(self, term.name)) for term in fields(self)}


@dataclass(frozen=True)
class Plan:
    """What decides on memory beside the model."""

    trainable: int
    is_quantized: bool
    half: bool
    """16-bit weights and activations."""
    strategy: Strategy
    ranks: int

    @property
    def width(self) -> int:
        """Bytes of a weight that is not quantised."""
        return 2 if self.half else 4

    @property
    def has_master(self) -> bool:
        """DeepSpeed in half precision keeps float32 weights and moments beside the 16-bit ones."""
        return self.strategy.startswith("zero") and self.half

    def train_width(self, spec: FineTuneJobSpec) -> int:
        """Bytes of a weight that is trained."""
        return (2 if self.is_quantized else 4) if spec.adapter.type == "lora" else self.width


def checkpoint_bytes(spec: FineTuneJobSpec, model: ModelShape, plan: Plan) -> int:
    """Bytes of one checkpoint to resume from, over all ranks: what is trained, and the optimizer's state of it (J-06).

    The base below an adapter is not in it; small files (random states, schedule, tokenizer) are not counted.
    """
    width, optimizer = plan.train_width(spec), spec.training.optimizer
    state = QUANTIZED_STATE if optimizer.endswith("_8bit") else OPTIMIZER_STATES[optimizer] * (4 if plan.has_master else width)
    return stripped_bytes(spec, model, plan) + round(plan.trainable * (state + (4 if plan.has_master else 0)))


def stripped_bytes(spec: FineTuneJobSpec, model: ModelShape, plan: Plan) -> int:
    """Bytes of a checkpoint whose optimizer state was dropped: the weights that are trained."""
    return plan.train_width(spec) * (plan.trainable if spec.adapter.type == "lora" else model.parameters)


def loading_bytes(spec: FineTuneJobSpec, model: ModelShape, plan: Plan, *, processes: int) -> int:
    """Bytes of main memory that a pod of ``processes`` ranks needs at least while weights are loaded; 0: they go straight to the GPU.

    On CPU that is a copy per rank, which stays; FSDP and ZeRO 3 need one per pod before they split it.
    """
    copy = _base_bytes(model, 4 if spec.precision.dtype == "float32" else 2, is_quantized=plan.is_quantized)
    if spec.resources.device == "cpu":
        return copy * processes
    return copy if plan.strategy in SHARDS_WEIGHTS else 0


def pod_bytes(spec: FineTuneJobSpec, *, strategy: Strategy, parameters: int, trainable: int, ranks: int, processes: int) -> int | None:
    """Bytes of main memory that a pod of ``processes`` ranks needs for what its strategy keeps there (M-04); None: it keeps nothing."""
    if not strategy.endswith("_offload"):
        return None
    state = OFFLOADED_STATE * trainable
    if strategy == "zero3_offload":
        state += (4 if spec.precision.dtype == "float32" else 2) * parameters
    return round(OFFLOAD_BUFFERS * state * processes / ranks) + processes * PROCESS_BYTES


def sequence_tokens(spec: FineTuneJobSpec, model: ModelShape, longest_row: int | None) -> int:
    """Tokens of the longest sequence in a batch, as far as they are known: ``longest_row`` is that of the rows that were counted."""
    return padded_length(spec, longest_sequence(spec, model.context or None), longest_row) or LONG


def estimate_memory(spec: FineTuneJobSpec, model: ModelShape, plan: Plan, *, longest_row: int | None = None) -> Footprint:
    """Estimate the peak of one GPU (N-01, N-04); ``longest_row`` is in tokens, None where rows were not counted."""
    is_lora, training = spec.adapter.type == "lora", spec.training
    width, train_width, has_master = plan.width, plan.train_width(spec), plan.has_master
    states = OPTIMIZER_STATES[training.optimizer] * (4 if has_master else train_width) + (4 if has_master else 0)
    share = Share(plan.strategy, plan.ranks)
    activations, logits = _passing(spec, model, width, sequence_tokens(spec, model, longest_row))
    scratch = model.hidden * model.feed_forward * 2 if plan.is_quantized else 0
    return Footprint(
        weights=share.of_weights(_base_bytes(model, width, is_quantized=plan.is_quantized)),
        adapter=share.of_weights(plan.trainable * train_width) if is_lora else 0,
        gradients=share.of_gradients(plan.trainable * (2 if has_master else train_width)),
        optimizer=share.of_optimizer(round(plan.trainable * states)),
        activations=round(FRAGMENTATION * activations) + share.gathered(model, width),
        logits=round(FRAGMENTATION * logits),
        overhead=CONTEXT_BYTES + scratch,
    )


@dataclass(frozen=True)
class Share:
    """What a strategy leaves of each kind of state on one GPU."""

    strategy: Strategy
    ranks: int

    def of_weights(self, total: int) -> int:
        """Split by ZeRO 3 and FSDP; offload keeps them in main memory."""
        if self.strategy == "zero3_offload":
            return 0
        return total // self.ranks if self.strategy in ("zero3", "fsdp") else total

    def of_gradients(self, total: int) -> int:
        """Split from ZeRO 2 on."""
        return total // self.ranks if self.strategy not in ("none", "ddp", "zero1") else total

    def of_optimizer(self, total: int) -> int:
        """Split from ZeRO 1 on; offload keeps it in main memory."""
        if self.strategy.endswith("_offload"):
            return 0
        return total // self.ranks if self.strategy not in ("none", "ddp") else total

    def gathered(self, model: ModelShape, width: int) -> int:
        """Weights put together for the layer under way and the one after it."""
        if self.strategy not in SHARDS_WEIGHTS:
            return 0
        return 2 * width * (model.parameters // max(model.layers, 1))


def _base_bytes(model: ModelShape, width: int, *, is_quantized: bool) -> int:
    if not is_quantized:
        return width * model.parameters
    kept = model.kept_parameters
    return math.ceil(NF4_BYTES * (model.parameters - kept)) + width * kept


def _passing(spec: FineTuneJobSpec, model: ModelShape, width: int, length: int) -> tuple[int, int]:
    """Activations and logits of one micro-batch whose rows have ``length`` tokens, without fragmentation."""
    training = spec.training
    tokens = training.batch_size * length
    per_layer = width * (15 * model.hidden + model.key_values + 3 * model.feed_forward)
    if spec.adapter.type == "lora":
        per_layer = round(per_layer * (DROPOUT_ACTIVATIONS if spec.adapter.dropout > 0 else LORA_ACTIVATIONS))
    if training.gradient_checkpointing:
        # Each layer keeps its input; one layer at a time is computed again and kept whole.
        activations = tokens * (model.layers * width * model.hidden + per_layer)
    else:
        activations = tokens * model.layers * per_layer
    logits = 4 * min(tokens, HEAD_TOKENS) * min(model.vocabulary, HEAD_VOCABULARY)
    return activations, logits

"""Whether a job fits its GPUs, and what ``auto`` comes to: the first way of training that fits, from the plainest on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.strategies import SHARDS_WEIGHTS, Strategy, effective_strategy
from finetune_trainer.estimate.memory import GIB, Footprint, Plan, checkpoint_bytes, estimate_memory, sequence_tokens, stripped_bytes
from finetune_trainer.estimate.shape import AdapterShape, ModelShape, adapter_parameters

DECIDED_CONDITION: Final = "QuantizationDecided"
MARGIN: Final = 1.1
"""An estimate must leave this much room before it counts as fitting."""


@dataclass(frozen=True)
class Verdict:
    """What a job will need and how it will be trained."""

    parameters: int
    trainable: int
    strategy: Strategy
    is_quantized: bool
    memory: Footprint | None
    """None on CPU."""
    available: int | None
    """Bytes of one GPU, where known."""
    reason: str
    """Why this way, with the numbers (N-03)."""
    checkpoint: int
    """Bytes of one checkpoint to resume from."""
    stripped: int
    """Bytes of one without optimizer state."""
    plan: Plan
    sequence: int
    """Tokens of the longest sequence that was reckoned with."""

    @property
    def fits(self) -> bool | None:
        """Whether it can run at all; None where the GPU is not known."""
        if self.memory is None or self.available is None:
            return None
        return self.memory.total <= self.available


def decide(
    spec: FineTuneJobSpec,
    model: ModelShape,
    adapter: AdapterShape,
    *,
    ranks: int,
    gpu_bytes: int | None,
    longest_row: int | None = None,
) -> Verdict:
    """Choose quantisation and strategy where the job leaves them to ``auto`` (N-01 to N-05).

    In this order: whole copies in 16 bit, whole copies over a 4-bit base, everything split and in main memory. ``gpu_bytes`` None: nobody
    knows the GPU yet, so that the first is taken. ``longest_row``: tokens of the longest row; None where rows were not counted. A
    model that is stored in 4 bits is trained in them (X32).
    """
    if model.is_quantized:
        spec = spec.model_copy(update={"quantization": spec.quantization.model_copy(update={"mode": "4bit"})})
    sees = spec.model.type != "LLM"
    whole = model.parameters if sees else model.parameters - model.vision_parameters
    trainable = adapter_parameters(model, adapter, sees=sees) if spec.adapter.type == "lora" else whole
    if spec.resources.device == "cpu":
        strategy = effective_strategy(spec.distributed.strategy, None, ranks)
        plan = Plan(trainable, spec.quantization.mode == "4bit", half=False, strategy=strategy, ranks=ranks)
        return _verdict(spec, model, plan, longest_row, "CPU: memory is the pod's (resources.memory)")
    ways = [
        replace(
            _verdict(spec, model, plan, longest_row),
            memory=estimate_memory(spec, model, plan, longest_row=longest_row),
            available=gpu_bytes,
        )
        for plan in _ways(spec, trainable, ranks)
    ]
    chosen = next((way for way in ways if gpu_bytes is None or _is_roomy(way)), ways[-1] if len(ways) == 1 else _smallest(ways))
    return replace(chosen, reason=_reason(chosen, ways[0]))


def _verdict(spec: FineTuneJobSpec, model: ModelShape, plan: Plan, longest_row: int | None, reason: str = "") -> Verdict:
    return Verdict(
        parameters=model.parameters,
        trainable=plan.trainable,
        strategy=plan.strategy,
        is_quantized=plan.is_quantized,
        memory=None,
        available=None,
        reason=reason,
        checkpoint=checkpoint_bytes(spec, model, plan),
        stripped=stripped_bytes(spec, model, plan),
        plan=plan,
        sequence=sequence_tokens(spec, model, longest_row),
    )


def _ways(spec: FineTuneJobSpec, trainable: int, ranks: int) -> Iterator[Plan]:
    """What the job allows, plainest first.

    A 4-bit base is never chosen where its weights are split: each GPU has to hold it whole while it is loaded, so that splitting it
    afterwards fits no larger model (X33).
    """
    mode = spec.quantization.mode
    half = spec.precision.dtype != "float32" and not (spec.precision.dtype == "float16" and spec.adapter.type == "full")
    quantizations = [mode == "4bit"] if mode != "auto" or spec.adapter.type == "full" else [False, True]
    plain = effective_strategy(spec.distributed.strategy, None, ranks)
    if plain in SHARDS_WEIGHTS and mode != "4bit":
        quantizations = [False]
    for is_quantized in quantizations:
        yield Plan(trainable, is_quantized, half, plain, ranks)
    if spec.distributed.strategy == "auto" and ranks > 1 and spec.training.backend == "standard" and mode != "4bit":
        yield Plan(trainable, is_quantized=False, half=half, strategy="zero3_offload", ranks=ranks)


def _is_roomy(way: Verdict) -> bool:
    assert way.memory is not None
    return way.available is None or way.memory.total * MARGIN <= way.available


def _smallest(ways: list[Verdict]) -> Verdict:
    return min(ways, key=lambda way: way.memory.total if way.memory is not None else 0)


def _reason(chosen: Verdict, plainest: Verdict) -> str:
    assert chosen.memory is not None
    assert plainest.memory is not None
    how = f"{'4-bit base (QLoRA)' if chosen.is_quantized else 'unquantised'}, strategy {chosen.strategy}"
    need = f"about {chosen.memory.total / GIB:.1f} GiB per GPU"
    if chosen.available is None:
        return f"{how}: {need}; the GPU's memory is not known (resources.gpuMemory), so that nothing was chosen by it"
    has = f"the GPU has {chosen.available / GIB:.1f} GiB"
    if not chosen.fits:
        return f"{how} still needs {need}; {has}"
    if chosen == plainest:
        return f"{how} fits: {need}, {has}"
    return f"{how}: {need}; unquantised with strategy {plainest.strategy} would need {plainest.memory.total / GIB:.1f} GiB, {has}"


def refusal(verdict: Verdict) -> str:
    """What is said to a job that does not fit: the reason, every term, what would help (N-05)."""
    assert verdict.memory is not None
    terms = ", ".join(f"{name} {size / GIB:.2f}" for name, size in verdict.memory.terms().items() if size)
    return f"InsufficientVRAM: {verdict.reason} (GiB: {terms}); {lacking(verdict)}."


def lacking(verdict: Verdict) -> str:
    """What would help a job that fits no GPU of its kind."""
    assert verdict.memory is not None
    splitting = "distributed.strategy zero3_offload" + (" and quantization.mode none" if verdict.is_quantized else "")
    largest = max(("weights", "optimizer", "gradients", "activations"), key=lambda term: int(getattr(verdict.memory, term)))
    levers = {
        "weights": f"use a GPU with more memory, or several with {splitting}",
        "optimizer": "set training.optimizer to adamw_8bit, adapter.type to lora, or distributed.strategy to zero2_offload",
        "gradients": "set adapter.type to lora, or distributed.strategy to zero2",
        "activations": "lower training.batchSize or training.maxSeqLength, or set training.gradientCheckpointing to true",
    }
    return f"most of it is {largest}: {levers[largest]}"

"""What ``auto`` comes to for this run: decided once, by pod 0 of the first attempt, and pinned."""

from __future__ import annotations

from finetune_api.contract.store import Pinned
from finetune_api.strategies import effective_strategy, is_quantized
from finetune_trainer.errors import configuration_error
from finetune_trainer.estimate.decision import Verdict, decide
from finetune_trainer.estimate.gpu import gpu_bytes
from finetune_trainer.estimate.shape import adapter_shape, read_shape
from finetune_trainer.sources.model_directory import local_files
from finetune_trainer.supervisor.startup import Inputs, Weights, fetch_peft_config

DECIDED_CONDITION = "QuantizationDecided"


def pin_way(inputs: Inputs, weights: Weights, known: Pinned, stored: Pinned | None) -> Pinned:
    """Add strategy and quantisation to what is known: those of the first attempt, else what fits the GPU.

    Raises :class:`TrainerError` (ConfigurationError) when nothing fits it.
    """
    if stored is not None and stored.strategy is not None:
        return known.model_copy(update={"strategy": stored.strategy, "quantization": stored.quantization})
    verdict = _judge(inputs, weights)
    spec, ranks = inputs.spec, inputs.config.topology.world_size
    if verdict is None:
        strategy, quantized = effective_strategy(spec.distributed.strategy, None, ranks), is_quantized(spec.quantization.mode, None)
    else:
        if verdict.fits is False:
            raise configuration_error(f"InsufficientVRAM: {verdict.reason}; {lacking(verdict)}.")
        strategy, quantized = verdict.strategy, verdict.is_quantized
        if spec.resources.device == "gpu" and spec.quantization.mode == "auto" and spec.adapter.type == "lora":
            inputs.board.warn(DECIDED_CONDITION, verdict.reason)
    return known.model_copy(update={"strategy": strategy, "quantization": "4bit" if quantized else "none"})


def lacking(verdict: Verdict) -> str:
    """What would help a job that fits no GPU of its kind."""
    assert verdict.memory is not None
    largest = max(("weights", "optimizer", "gradients", "activations"), key=lambda term: int(getattr(verdict.memory, term)))
    levers = {
        "weights": "use a GPU with more memory, or several with distributed.strategy zero3_offload",
        "optimizer": "set training.optimizer to adamw_8bit, adapter.type to lora, or distributed.strategy to zero2_offload",
        "gradients": "set adapter.type to lora, or distributed.strategy to zero2",
        "activations": "lower training.batchSize or training.maxSeqLength, or set training.gradientCheckpointing to true",
    }
    return f"most of it is {largest}: {levers[largest]}"


def _judge(inputs: Inputs, weights: Weights) -> Verdict | None:
    shape = read_shape(local_files(weights.model.directory))
    if shape is None:
        return None
    adapter = adapter_shape(inputs.spec.adapter, fetch_peft_config(inputs))
    return decide(inputs.spec, shape, adapter, ranks=inputs.config.topology.world_size, gpu_bytes=gpu_bytes(inputs.spec.resources))

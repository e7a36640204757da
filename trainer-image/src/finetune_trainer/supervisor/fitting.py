"""What ``auto`` comes to for this run: decided once, by pod 0 of the first attempt, and pinned."""

from __future__ import annotations

from finetune_api.contract.store import Pinned
from finetune_api.strategies import effective_strategy, is_quantized
from finetune_trainer.errors import configuration_error
from finetune_trainer.estimate.decision import DECIDED_CONDITION, Verdict, decide, refusal
from finetune_trainer.estimate.gpu import gpu_bytes
from finetune_trainer.estimate.shape import adapter_shape, read_shape
from finetune_trainer.sources.model_directory import local_files
from finetune_trainer.supervisor.startup import Inputs, Weights, fetch_peft_config


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
            raise configuration_error(refusal(verdict))
        strategy, quantized = verdict.strategy, verdict.is_quantized
        if spec.resources.device == "gpu" and spec.quantization.mode == "auto" and spec.adapter.type == "lora":
            inputs.board.warn(DECIDED_CONDITION, verdict.reason)
    return known.model_copy(update={"strategy": strategy, "quantization": "4bit" if quantized else "none"})


def _judge(inputs: Inputs, weights: Weights) -> Verdict | None:
    shape = read_shape(local_files(weights.model.directory))
    if shape is None:
        return None
    adapter = adapter_shape(inputs.spec.adapter, fetch_peft_config(inputs, weights))
    return decide(inputs.spec, shape, adapter, ranks=inputs.config.topology.world_size, gpu_bytes=gpu_bytes(inputs.spec.resources))

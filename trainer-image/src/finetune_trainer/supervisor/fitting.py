"""What ``auto`` comes to for this run: decided once, by pod 0 of the first attempt, and pinned."""

from __future__ import annotations

from pathlib import Path

from finetune_api.contract.store import Pinned
from finetune_api.strategies import effective_strategy, is_quantized
from finetune_trainer.errors import configuration_error
from finetune_trainer.estimate.decision import DECIDED_CONDITION, Verdict, decide, refusal
from finetune_trainer.estimate.gpu import gpu_bytes
from finetune_trainer.estimate.shape import adapter_shape, read_shape
from finetune_trainer.sources.model_directory import local_files
from finetune_trainer.stored_quantization import stored_quantization
from finetune_trainer.supervisor.prepared import read_summary
from finetune_trainer.supervisor.startup import Inputs, Weights, fetch_peft_config
from finetune_trainer.vision import read_config


def carry_way(known: Pinned, stored: Pinned | None) -> Pinned:
    """Add strategy and quantisation of the first attempt, if there was one, to what is known."""
    if stored is None or stored.strategy is None:
        return known
    return known.model_copy(update={"strategy": stored.strategy, "quantization": stored.quantization})


def pin_way(inputs: Inputs, weights: Weights, rows: Path, known: Pinned) -> Pinned:
    """Add strategy and quantisation to what is known, where they are not: what fits the GPU with the prepared rows.

    Raises :class:`TrainerError` (ConfigurationError) when nothing fits it.
    """
    if known.strategy is not None:
        return known
    verdict = _judge(inputs, weights, rows)
    spec, ranks = inputs.spec, inputs.config.topology.world_size
    if verdict is None:
        strategy = effective_strategy(spec.distributed.strategy, None, ranks)
        quantized = is_quantized(spec.quantization.mode, None) or stored_quantization(read_config(weights.model.directory)) == "4bit"
    else:
        if verdict.fits is False:
            raise configuration_error(refusal(verdict))
        strategy, quantized = verdict.strategy, verdict.is_quantized
        if spec.resources.device == "gpu" and spec.quantization.mode == "auto" and spec.adapter.type == "lora":
            inputs.board.warn(DECIDED_CONDITION, verdict.reason)
    return known.model_copy(update={"strategy": strategy, "quantization": "4bit" if quantized else "none"})


def _judge(inputs: Inputs, weights: Weights, rows: Path) -> Verdict | None:
    shape = read_shape(local_files(weights.model.directory))
    if shape is None:
        return None
    adapter = adapter_shape(inputs.spec.adapter, fetch_peft_config(inputs, weights))
    return decide(
        inputs.spec,
        shape,
        adapter,
        ranks=inputs.config.topology.world_size,
        gpu_bytes=gpu_bytes(inputs.spec.resources),
        longest_row=round(longest) if (longest := read_summary(rows).tokens.get("max")) else None,
    )

"""The base model and its tokenizer, from local directories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    BitsAndBytesConfig,
    PreTrainedModel,
)
from transformers.utils import logging

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.tokenizer import refuse_own_code
from finetune_trainer.vision import VISION_PATTERN
from finetune_trainer.worker.precision import Device, Dtype, Formats

DTYPES: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}

Kind: TypeAlias = Literal["text", "images", "scores"]
"""What a model reads beside text, or gives instead of it."""
KINDS: Final[Mapping[Kind, tuple[Any, str]]] = {
    "text": (AutoModelForCausalLM, "causal language"),
    "images": (AutoModelForImageTextToText, "vision-language"),
    "scores": (AutoModelForSequenceClassification, "reward"),
}
"""Transformers' class for each, and what people call it."""


def find_device(kind: str, local_rank: int) -> Device:
    """Look at this rank's device and make it the current one.

    Raises :class:`TrainerError` (ConfigurationError) when a GPU is asked for and there is none.
    """
    if kind == "cpu":
        return Device("cpu")
    if not torch.cuda.is_available() or torch.cuda.device_count() <= local_rank:
        raise TrainerError(
            FailureClass.CONFIGURATION,
            f"resources.device: gpu, but rank {local_rank} of this pod finds {torch.cuda.device_count()} GPUs; "
            "check resources.gpusPerReplica and the node's driver, or set resources.device to cpu",
        )
    torch.cuda.set_device(local_rank)
    return Device("gpu", torch.cuda.get_device_name(local_rank), torch.cuda.get_device_capability(local_rank) >= (8, 0))


def four_bits(formats: Formats, kind: Kind = "text") -> BitsAndBytesConfig:
    """Return QLoRA's way of holding a base model: normal floats of 4 bits, their scales quantised once more (B-10).

    A vision part stays as it is: it is small, and what it sees would blur.
    """
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[formats.weights],
        llm_int8_skip_modules=[VISION_PATTERN, "lm_head"] if kind == "images" else None,
    )


def keep_trainable(model: PreTrainedModel) -> None:
    """Let no 4-bit layer be packed for inference.

    On CPUs with AVX512-BF16 bitsandbytes does so at the first evaluation, for good: scales are rounded, gradients pass no longer, and
    matrices whose sizes do not fit are refused.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def load_model(
    directory: Path,
    formats: Formats,
    device: Device,
    *,
    placed: bool,
    kind: Kind = "text",
    runs_code: bool = False,
) -> PreTrainedModel:
    """Load a causal language model; of kind ``images`` one with its vision part.

    With ``placed`` its weights go straight from the file to this rank's GPU, so host memory holds no copy per rank; otherwise the strategy
    puts them where it wants them, and for ZeRO 3 must (in 4 bits they come to this rank's GPU all the same). Of kind ``scores`` it gives
    one number per sequence instead; a head that the directory does not have is drawn from torch's random state. Code beside the weights
    is run only with ``runs_code``.

    Raises :class:`TrainerError`: ModelError when the directory holds no such model, ConfigurationError when only its own code can load it,
    QuantizationUnavailable when bitsandbytes is not there or does not know the device.
    """
    if not runs_code:
        refuse_own_code(directory)
    logging.disable_progress_bar()
    options: dict[str, Any] = {"trust_remote_code": runs_code}
    if device.kind == "gpu" and placed:
        options["device_map"] = {"": torch.cuda.current_device()}
    if formats.is_quantized:
        options["quantization_config"] = four_bits(formats, kind)
    if kind == "scores":
        options["num_labels"] = 1
    loader, name = KINDS[kind]
    try:
        model: PreTrainedModel = loader.from_pretrained(directory, dtype=DTYPES[formats.weights], local_files_only=True, **options)
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = str(error).strip().partition("\n")[0][:300]
        if formats.is_quantized and isinstance(error, (ImportError, RuntimeError)) and "bitsandbytes" in str(error):
            raise TrainerError(FailureClass.QUANTIZATION_UNAVAILABLE, f"quantization.mode: 4bit cannot be had here: {reason}") from error
        raise TrainerError(
            FailureClass.MODEL,
            f"model.uri: {directory.name} cannot be loaded as a {name} model: {reason}",
        ) from error
    if formats.is_quantized:
        keep_trainable(model)
    # Loaded in shares (ZeRO 3) it keeps renamings that its files did not need; undone by a save, they would give names nobody reads.
    conversions = getattr(model, "_weight_conversions", None) or []
    model._weight_conversions = [conversion for conversion in conversions if conversion.was_used()]  # noqa: SLF001  # there is no public way
    return model

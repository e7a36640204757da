"""Models of the benchmarks: small ones as the demo has them, and the shapes of two public models with random weights.

Nothing is downloaded: the sizes are those of the models' public config.json, the tokenizer is the small model's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from examples.tiny_model import SHAPES, write_model

SEED: Final = 42
PUBLIC: Final[dict[str, dict[str, Any]]] = {
    # meta-llama/Llama-3.2-1B
    "1b": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
        "rope_parameters": {"factor": 32.0},
    },
    # meta-llama/Llama-3.1-8B
    "8b": {
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": False,
        "rope_parameters": {"factor": 8.0},
    },
}
ROPE: Final = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
NAMES: Final = (*sorted(SHAPES, reverse=True), *PUBLIC)


def public_config(shape: str) -> LlamaConfig:
    """Config of one of :data:`PUBLIC`, with the special tokens of the small model's tokenizer."""
    sizes = PUBLIC[shape]
    return LlamaConfig(
        **sizes | {"rope_parameters": ROPE | sizes["rope_parameters"]},
        vocab_size=128256,
        max_position_embeddings=131072,
        rms_norm_eps=1e-05,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
        dtype="bfloat16",
    )


def write_shape(directory: Path, shape: str, device: str = "cpu") -> None:
    """Write a model directory with random weights; those of :data:`PUBLIC` in bfloat16, made on ``device`` (torch's name)."""
    if shape not in PUBLIC:
        write_model(directory, params=shape)
        return
    write_model(directory, params="small")
    torch.manual_seed(SEED)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(public_config(shape), dtype=torch.bfloat16)
    model.save_pretrained(directory)
    if (directory / "model.safetensors.index.json").exists():
        (directory / "model.safetensors").unlink()
    del model
    if device != "cpu":
        torch.cuda.empty_cache()

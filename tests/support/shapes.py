"""Shapes of well-known models, as their config.json and safetensors headers have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from finetune_trainer.estimate.shape import ModelShape


def llama(*, hidden: int, layers: int, key_values: int, feed_forward: int, vocabulary: int, tied: bool = False) -> ModelShape:
    """A decoder of the Llama family."""
    tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens": (vocabulary, hidden), "model.norm": (hidden,)}
    if not tied:
        tensors["lm_head"] = (vocabulary, hidden)
    for layer in range(layers):
        at = f"model.layers.{layer}"
        tensors |= {
            f"{at}.self_attn.q_proj": (hidden, hidden),
            f"{at}.self_attn.k_proj": (key_values, hidden),
            f"{at}.self_attn.v_proj": (key_values, hidden),
            f"{at}.self_attn.o_proj": (hidden, hidden),
            f"{at}.mlp.gate_proj": (feed_forward, hidden),
            f"{at}.mlp.up_proj": (feed_forward, hidden),
            f"{at}.mlp.down_proj": (hidden, feed_forward),
            f"{at}.input_layernorm": (hidden,),
            f"{at}.post_attention_layernorm": (hidden,),
        }
    return ModelShape(tensors, hidden, layers, key_values, feed_forward, vocabulary, 131072)


LLAMA_8B = llama(hidden=4096, layers=32, key_values=1024, feed_forward=14336, vocabulary=128256)
"""Llama-3.1-8B: 8.03 billion parameters."""
QWEN_14B = llama(hidden=5120, layers=48, key_values=1024, feed_forward=13824, vocabulary=152064)
"""Of the size of Qwen2.5-14B: 14.8 billion parameters."""
SHIPPED_SHAPES: Final[Mapping[str, ModelShape]] = {
    "llama-3.1-8b-instruct": LLAMA_8B,
    "llama-3.1-8b-instruct-bnb-4bit": replace(LLAMA_8B, is_quantized=True),
    "llama-3.2-1b-instruct": llama(hidden=2048, layers=16, key_values=512, feed_forward=8192, vocabulary=128256, tied=True),
    "llama-3.2-3b-instruct": llama(hidden=3072, layers=28, key_values=1024, feed_forward=8192, vocabulary=128256, tied=True),
    "qwen2.5-3b-instruct": llama(hidden=2048, layers=36, key_values=256, feed_forward=11008, vocabulary=151936, tied=True),
    "qwen2.5-14b-instruct": QWEN_14B,
    "qwen2.5-vl-7b-instruct": llama(hidden=3584, layers=28, key_values=512, feed_forward=18944, vocabulary=152064),
    "falcon-7b-instruct": llama(hidden=4544, layers=32, key_values=64, feed_forward=12117, vocabulary=65024, tied=True),
}
"""Of the size of the BaseModels every installation has, by name: their language parts."""

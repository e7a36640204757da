"""Shapes of well-known models, as their config.json and safetensors headers have them."""

from __future__ import annotations

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

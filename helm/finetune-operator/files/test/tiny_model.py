"""Make a tiny Llama-type model with random weights and a tokenizer of its own, as a Hugging Face directory.

It lets the whole path (download, training, checkpoints, adapter) run for real on two CPU cores, offline and without anybody's weights:

    python examples/tiny_model.py OUT_DIR [--data FILE] [--params small|test] [--seed 42]

The same arguments give the same bytes. Needs numpy, safetensors and tokenizers; neither torch nor transformers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

FloatArray: TypeAlias = NDArray[np.float32]

DEFAULT_DATA: Final = Path(__file__).parent / "data" / "kubernetes-sft.jsonl"
PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
"""Special tokens, ids 0, 1, 2. Padding is not the end token: a collator masks padding in the labels, and the model would never learn to stop."""
ROLES: Final = ("system", "user", "assistant")
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
FILE_MODE: Final = 0o644
"""Readable by the trainer, which runs as another user."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a Llama model; the output head has weights of its own."""

    vocab: int
    """Tokens the tokenizer learns at most; fewer when the data is too small for more."""
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    context: int
    """Longest sequence, in tokens."""


SHAPES: Final = {
    "small": Shape(vocab=4096, hidden=256, intermediate=768, layers=6, heads=4, kv_heads=2, context=2048),
    "test": Shape(vocab=768, hidden=96, intermediate=256, layers=3, heads=4, kv_heads=2, context=1024),
}


class DataError(ValueError):
    """The data file cannot be used; the message names file, line and reason."""


def read_texts(path: Path) -> Iterator[str]:
    """Yield each row of a JSONL file in ``messages`` format as the chat template renders it."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            messages = json.loads(line)["messages"]
            turns = [(turn["role"], turn["content"]) for turn in messages]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise DataError(f'{path}, line {number}: expected {{"messages": [{{"role": ..., "content": ...}}, ...]}} ({error!r})') from error
        yield "".join(f"{START}{role}\n{content}{END}\n" for role, content in turns)


def train_tokenizer(texts: Iterator[str], vocab: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer: any text can be encoded, none needs an unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[PAD, START, END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def build_weights(shape: Shape, vocab: int, seed: int) -> dict[str, FloatArray]:
    """Draw all weights: unit-variance signals everywhere and a first loss near ln(vocab).

    Matrices have a standard deviation of 1/sqrt(inputs); those that write into the residual stream are smaller by sqrt(2 x layers), so that depth does not
    add variance.
    """
    draw = np.random.default_rng(seed).standard_normal
    head_dim = shape.hidden // shape.heads
    kv = shape.kv_heads * head_dim

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> FloatArray:
        return draw((outputs, inputs), dtype=np.float32) * np.float32(gain / inputs**0.5)

    residual = (2 * shape.layers) ** -0.5
    ones = np.ones(shape.hidden, dtype=np.float32)
    weights: dict[str, FloatArray] = {"model.embed_tokens.weight": draw((vocab, shape.hidden), dtype=np.float32)}
    for layer in range(shape.layers):
        prefix = f"model.layers.{layer}."
        weights |= {
            f"{prefix}self_attn.q_proj.weight": matrix(shape.hidden, shape.hidden),
            f"{prefix}self_attn.k_proj.weight": matrix(kv, shape.hidden),
            f"{prefix}self_attn.v_proj.weight": matrix(kv, shape.hidden),
            f"{prefix}self_attn.o_proj.weight": matrix(shape.hidden, shape.hidden, residual),
            f"{prefix}mlp.gate_proj.weight": matrix(shape.intermediate, shape.hidden),
            f"{prefix}mlp.up_proj.weight": matrix(shape.intermediate, shape.hidden),
            f"{prefix}mlp.down_proj.weight": matrix(shape.hidden, shape.intermediate, residual),
            f"{prefix}input_layernorm.weight": ones,
            f"{prefix}post_attention_layernorm.weight": ones,
        }
    return weights | {"model.norm.weight": ones, "lm_head.weight": matrix(vocab, shape.hidden, HEAD_GAIN)}


HEAD_GAIN = 0.5


def build_config(shape: Shape, vocab: int) -> dict[str, object]:
    """Return config.json of a LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "dtype": "float32",
        "eos_token_id": 2,
        "head_dim": shape.hidden // shape.heads,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": vocab,
    }


def build_files(data: Path, shape: Shape, seed: int) -> dict[str, bytes]:
    """Return the directory's files by name."""
    tokenizer = train_tokenizer(read_texts(data), shape.vocab)
    vocab = tokenizer.get_vocab_size()
    special = {"eos_token": END, "pad_token": PAD}
    tokenizer_config = {
        **special,
        "additional_special_tokens": [START],
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    generation = {"eos_token_id": 2, "pad_token_id": 0, "max_new_tokens": 128}
    return {
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
        "config.json": to_json(build_config(shape, vocab)),
        "generation_config.json": to_json(generation),
        "model.safetensors": save(build_weights(shape, vocab, seed), metadata={"format": "pt"}),
        "special_tokens_map.json": to_json({**special, "additional_special_tokens": [START]}),
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": to_json(tokenizer_config),
    }


def to_json(value: dict[str, object]) -> bytes:
    """Return readable JSON with a final line break."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()

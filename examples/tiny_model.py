"""Make a tiny Llama-type model with random weights and a tokenizer of its own, as a Hugging Face directory.

It lets the whole path (download, training, checkpoints, adapter) run for real on two CPU cores, offline and without anybody's weights:

    python examples/tiny_model.py OUT_DIR [--data FILE] [--params small|test] [--seed 42]

The same arguments give the same bytes. Needs numpy, safetensors and tokenizers; neither torch nor transformers.
"""

# ruff: noqa: INP001 - a script beside its data, not a package

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
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
PAD_ID, END_ID = 0, 2
"""Special tokens come first in the vocabulary, in this order.

Padding is a token of its own: collators mask padding in the labels, and were it the end token, the model would never learn to stop.
"""
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

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden // self.heads


SHAPES: Final = {
    "small": Shape(vocab=4096, hidden=256, intermediate=704, layers=8, heads=4, kv_heads=2, context=2048),
    "test": Shape(vocab=768, hidden=64, intermediate=176, layers=2, heads=4, kv_heads=2, context=1024),
}


class DataError(ValueError):
    """The data file cannot be used; the message names file, line and reason."""


def read_turns(path: Path) -> list[str]:
    """Return every turn of a JSONL file in ``messages`` format: role and content, as the chat template joins them."""
    turns: list[str] = []
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                turns += [turn["role"] + "\n" + turn["content"] for turn in json.loads(line)["messages"]]
            except (ValueError, KeyError, TypeError) as error:
                expected = '{"messages": [{"role": "user", "content": "..."}, ...]}'
                raise DataError(f"{path}, line {number}: not a row like {expected}: {error!r}") from error
    if not turns:
        raise DataError(f"{path}: no rows; the tokenizer needs text to learn from")
    return turns


def train_tokenizer(turns: list[str], vocab: int) -> Tokenizer:
    """Train a byte-level BPE tokenizer: any text can be encoded, none needs an unknown token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[PAD, START, END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(turns, trainer)
    return tokenizer


def build_weights(shape: Shape, vocab: int, seed: int) -> dict[str, FloatArray]:
    """Draw all weights, float32, by the names of LlamaForCausalLM.

    Matrices have a standard deviation of 1/sqrt(inputs), so signals and logits start with variance 1 and the first loss is ln(vocab) + 0.5.
    That is also what lets an adapter move the loss although the output head stays frozen. Matrices that write into the residual stream are
    smaller by sqrt(2 x layers), so that depth adds no variance.
    """
    draw = np.random.default_rng(seed).standard_normal
    kv = shape.kv_heads * shape.head_dim
    residual = (2 * shape.layers) ** -0.5
    ones = np.ones(shape.hidden, dtype=np.float32)

    def matrix(outputs: int, inputs: int, gain: float = 1.0) -> FloatArray:
        return draw((outputs, inputs), dtype=np.float32) * np.float32(gain / inputs**0.5)

    weights = {"model.embed_tokens.weight": draw((vocab, shape.hidden), dtype=np.float32)}
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
    return weights | {"model.norm.weight": ones, "lm_head.weight": matrix(vocab, shape.hidden)}


def build_config(shape: Shape, vocab: int) -> dict[str, object]:
    """Return config.json of a LlamaForCausalLM."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "dtype": "float32",
        "eos_token_id": END_ID,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": shape.context,
        "mlp_bias": False,
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "pad_token_id": PAD_ID,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"},
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": vocab,
    }


def build_files(turns: list[str], shape: Shape, seed: int) -> dict[str, bytes]:
    """Return the content of the directory's files by name."""
    tokenizer = train_tokenizer(turns, shape.vocab)
    vocab = tokenizer.get_vocab_size()
    special = {"eos_token": END, "pad_token": PAD}
    tokenizer_config = {
        **special,
        "additional_special_tokens": [START],
        "clean_up_tokenization_spaces": False,
        "model_max_length": shape.context,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    generation = {"eos_token_id": END_ID, "pad_token_id": PAD_ID, "max_new_tokens": 128}
    return {
        "chat_template.jinja": CHAT_TEMPLATE.encode(),
        "config.json": to_json(build_config(shape, vocab)),
        "generation_config.json": to_json(generation),
        "model.safetensors": save(build_weights(shape, vocab, seed), metadata={"format": "pt"}),
        "special_tokens_map.json": to_json({**special, "additional_special_tokens": [START]}),
        "tokenizer.json": tokenizer.to_str(pretty=True).encode(),
        "tokenizer_config.json": to_json(tokenizer_config),
    }


def to_json(value: Mapping[str, object]) -> bytes:
    """Return readable JSON with a final line break."""
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode()


def write_model(out: Path, *, data: Path = DEFAULT_DATA, params: str = "small", seed: int = 42) -> None:
    """Write the model directory ``out``, over what an earlier call left there.

    Raises:
        DataError: the data file has no rows or a row that is not in ``messages`` format.
        OSError: a file cannot be read or written.
    """
    files = build_files(read_turns(data), SHAPES[params], seed)
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = out / name
        path.write_bytes(content)
        path.chmod(FILE_MODE)


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="Make a tiny Llama-type model with random weights and its own tokenizer.")
    parser.add_argument("out", metavar="OUT_DIR", type=Path, help="directory for the model; made if it does not exist")
    parser.add_argument(
        "--data", metavar="FILE", type=Path, default=DEFAULT_DATA, help="JSONL in messages format that the tokenizer is trained on"
    )
    parser.add_argument("--params", choices=sorted(SHAPES), default="small", help="small: 8 million parameters; test: 0.2 million")
    parser.add_argument("--seed", type=int, default=42, help="seed of the weights (default: %(default)s)")
    args = parser.parse_args()
    if args.seed < 0:
        parser.error(f"argument --seed: {args.seed} is negative; use 0 or more")
    try:
        write_model(args.out, data=args.data, params=args.params, seed=args.seed)
    except (DataError, OSError) as error:
        parser.exit(1, f"error: {error}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

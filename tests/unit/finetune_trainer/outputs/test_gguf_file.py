"""Parts of the GGUF writer that tiny models do not reach."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from finetune_api.models.output import GgufType
from finetune_trainer.outputs.gguf_file import kind_of, permute_heads, rope_factors


def test_rope_factors_are_those_of_transformers() -> None:
    """Llama 3.1: the divisors stored in the file turn the plain frequencies into transformers' own."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    config = LlamaConfig(hidden_size=512, num_attention_heads=4, max_position_embeddings=131072, rope_parameters=rope)
    wanted, _ = ROPE_INIT_FUNCTIONS["llama3"](config, torch.device("cpu"))
    plain = 1 / 500000.0 ** (np.arange(0, 128, 2) / 128)
    found = plain / rope_factors(config.to_dict())
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "wanted", "kind"),
    [
        ("blk.0.attn_q.weight", (64, 64), "Q4_0", Kind.Q4_0),
        ("token_embd.weight", (100, 64), "Q4_0", Kind.Q8_0),
        ("output.weight", (100, 64), "Q4_0", Kind.Q8_0),
        ("output.weight", (100, 64), "BF16", Kind.BF16),
        ("output_norm.weight", (64,), "Q8_0", Kind.F32),
        ("blk.0.ffn_down.weight", (64, 90), "Q8_0", Kind.F16),
        ("blk.0.ffn_down.weight", (64, 90), "BF16", Kind.BF16),
    ],
)
def test_number_format_of_a_tensor(name: str, shape: tuple[int, ...], wanted: GgufType, kind: Kind) -> None:
    """Vectors stay exact, outer matrices of Q4_0 keep eight bits, rows that fill no blocks become F16."""
    assert kind_of(name, shape, wanted) is kind


def test_rows_of_a_head_become_pairs() -> None:
    """Two heads of four rows: halves (0 1)(2 3) become pairs (0 2)(1 3)."""
    rows = np.arange(8, dtype=np.float32).reshape(8, 1)
    assert permute_heads(rows, 2).ravel().tolist() == [0, 2, 1, 3, 4, 6, 5, 7]

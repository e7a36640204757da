"""What the start-up probe takes, and what it puts back."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from finetune_trainer.worker.probe import longest_rows, make_moments, untouched


def test_the_longest_rows_make_the_batch() -> None:
    """Longest first; a small data set is repeated until the batch is full."""
    assert longest_rows(np.array([3, 9, 5, 9]), 3) == [3, 1, 2]
    assert longest_rows(np.array([3, 9]), 5) == [1, 0, 1, 0, 1]


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.SGD, torch.optim.Adafactor])
def test_moments_are_made_without_moving_a_weight(kind: type[torch.optim.Optimizer]) -> None:
    """Whatever the gradients were, not finite ones too, weights keep their bits and rates come back."""
    weight = torch.nn.Parameter(torch.tensor([[1.5, -0.0], [0.0, -2.25]]))
    weight.grad = torch.tensor([[float("nan"), float("inf")], [1.0, -1.0]])
    before = weight.detach().clone().view(torch.int32)
    optimizer = kind([weight], lr=0.5, weight_decay=0.1)  # type: ignore[call-arg]  # all of these take both
    make_moments(optimizer)
    assert torch.equal(weight.detach().view(torch.int32), before)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_random_states_and_buffers_are_put_back() -> None:
    """Rotary embeddings that grow with the text forget the longest batch; dropout draws what it would have drawn."""
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        max_position_embeddings=32,
        rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0},
    )
    rope = LlamaRotaryEmbedding(config)
    frequencies = rope.inv_freq.clone()
    states = random.getstate(), torch.get_rng_state()
    with untouched(rope):
        rope(torch.zeros(1, 1), torch.arange(100)[None])
        assert not torch.equal(rope.inv_freq, frequencies)
        random.random()  # noqa: S311  # drawn to be taken back
        torch.rand(3)
    assert torch.equal(rope.inv_freq, frequencies)
    assert rope.max_seq_len_cached == 32
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])

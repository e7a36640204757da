"""Attention over packed rows without padding and without a mask: each row attends to itself alone, by its bounds.

The stock attention finds the rows of a packed sequence by a mask of tokens x tokens, which no fast kernel takes. Here the bounds that TRL's
collator knows go to torch's variable-length kernel (FlashAttention) on GPUs; on CPU each row is one call of the dense kernel.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final, NamedTuple

import torch
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

NAME: Final = "finetune_varlen"
"""Name under which transformers knows it."""
HALF: Final = (torch.bfloat16, torch.float16)


def register() -> None:
    """Make :data:`NAME` an attention implementation of transformers. Its mask is that of the flash kernels: none."""
    AttentionInterface.register(NAME, varlen_attention)
    AttentionMaskInterface.register(NAME, flash_attention_mask)


class Bounds(NamedTuple):
    """Where the rows of a packed sequence are, and how they attend."""

    starts: torch.Tensor
    """[rows + 1], int32."""
    longest: int
    """Tokens of the longest row."""
    scaling: float | None
    window: int | None
    """A token sees itself and ``window - 1`` before; None: all of them."""


def varlen_attention(  # noqa: PLR0913  # transformers' signature
    _module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Attend causally within each row.

    ``query`` [1, heads, tokens, width], ``key`` and ``value`` [1, key heads, tokens, width]; ``cu_seq_lens_q`` [rows + 1] tells where rows
    begin, ``max_length_q`` the longest one. Returns [1, tokens, heads, width]. Raises :class:`ValueError` for a batch that is not packed.
    """
    if attention_mask is not None or cu_seq_lens_q is None or max_length_q is None or query.shape[0] != 1:
        raise ValueError(f"{NAME} takes packed rows with their bounds, found a batch of shape {tuple(query.shape)}")
    bounds = Bounds(cu_seq_lens_q, max_length_q, scaling, sliding_window)
    attend = by_kernel if query.device.type == "cuda" else row_by_row
    return attend(query, key, value, bounds), None


def by_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """Hand all rows to torch's variable-length kernel."""
    given = query.dtype
    # Rotary embeddings leave float32 under autocast; the kernel takes 16 bits.
    half = given if given in HALF else torch.get_autocast_dtype("cuda")
    q, k, v = (part[0].transpose(0, 1).to(half) for part in (query, key, value))
    left = -1 if bounds.window is None else bounds.window - 1
    attended = varlen.varlen_attn(
        q,
        k,
        v,
        bounds.starts,
        bounds.starts,
        bounds.longest,
        bounds.longest,
        scale=bounds.scaling,
        window_size=(left, 0),
        enable_gqa=True,
    )
    assert isinstance(attended, torch.Tensor), "log-sums are not asked for"
    return attended.unsqueeze(0).to(given)


def row_by_row(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, bounds: Bounds) -> torch.Tensor:
    """Call the dense kernel once for each row."""
    repeats = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(repeats, dim=1), value.repeat_interleave(repeats, dim=1)
    rows = []
    for start, end in pairwise(bounds.starts.tolist()):
        q, k, v = (part[:, :, start:end] for part in (query, key, value))
        mask = _band(end - start, bounds.window) if bounds.window is not None and end - start > bounds.window else None
        rows.append(scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None, scale=bounds.scaling))
    return torch.cat(rows, dim=2).transpose(1, 2).contiguous()


def _band(length: int, window: int) -> torch.Tensor:
    """Which tokens see which: those before and itself, ``window`` in all."""
    ones = torch.ones(length, length, dtype=torch.bool)
    return ones.tril() & ones.triu(1 - window)

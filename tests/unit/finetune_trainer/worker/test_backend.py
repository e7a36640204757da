"""The optimized backend: attention by bounds is attention under a block mask; what cannot be had is named."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from finetune_trainer.worker import backend, varlen
from finetune_trainer.worker.backend import ATTENTION, LAYERS, OPTIMIZER, optimize, optimizer_name, why_no_attention, why_no_layers
from finetune_trainer.worker.precision import Device, Formats
from finetune_trainer.worker.varlen import Bounds
from tests.unit.finetune_trainer.worker.conftest import MakeSpec

CPU, H100, T4 = Device("cpu"), Device("gpu", "NVIDIA H100"), Device("gpu", "Tesla T4", has_bfloat16=False)
HALF, FULL = Formats("bfloat16", "bfloat16", "no", tf32=False), Formats("float32", "float32", "no", tf32=False)
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
BOUNDS = torch.tensor([0, 5, 6, 17], dtype=torch.int32)


def packed(heads: int, *, grad: bool = False) -> torch.Tensor:
    """Values of three packed rows."""
    return torch.randn(1, heads, 17, 8, dtype=torch.float64, requires_grad=grad)


def block_mask(window: int | None) -> torch.Tensor:
    """Tokens x tokens: same row, not later, not too far back."""
    rows = torch.bucketize(torch.arange(17), BOUNDS[1:], right=True)
    distance = torch.arange(17)[:, None] - torch.arange(17)[None]
    return (rows[:, None] == rows[None]) & (distance >= 0) & (distance < (window or 17))


@pytest.mark.parametrize("window", [None, 3, 20])
def test_rows_attend_to_themselves_alone(window: int | None) -> None:
    """Values and gradients of the stock attention under a block mask, with grouped key-value heads."""
    query, key, value = packed(4, grad=True), packed(2, grad=True), packed(2, grad=True)
    mine, _ = varlen.varlen_attention(
        torch.nn.Module(), query, key, value, None, scaling=0.3, sliding_window=window, cu_seq_lens_q=BOUNDS, max_length_q=11
    )
    keys, values = (part.repeat_interleave(2, dim=1) for part in (key, value))
    stock = scaled_dot_product_attention(query, keys, values, attn_mask=block_mask(window), scale=0.3).transpose(1, 2)
    torch.testing.assert_close(mine, stock, rtol=0, atol=1e-12)
    weight = torch.randn_like(stock)
    for a, b in zip(*(torch.autograd.grad((out * weight).sum(), (query, key, value)) for out in (mine, stock)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_the_kernel_gets_rows_in_its_own_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """What goes to torch's variable-length kernel on a GPU: [tokens, heads, width] in 16 bits, int32 bounds, causal within the window."""
    seen: dict[str, Any] = {}

    def kernel(*parts: Any, **options: Any) -> torch.Tensor:
        seen.update(parts=parts, options=options)
        query: torch.Tensor = parts[0]
        return query

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", kernel)
    query = torch.randn(1, 4, 17, 8, dtype=torch.bfloat16)
    out = varlen.by_kernel(query, packed(2).bfloat16(), packed(2).bfloat16(), Bounds(BOUNDS, 11, 0.3, 4))
    assert torch.equal(out, query.transpose(1, 2))
    assert [tuple(part.shape) for part in seen["parts"][:3]] == [(17, 4, 8), (17, 2, 8), (17, 2, 8)]
    assert seen["parts"][3:] == (BOUNDS, BOUNDS, 11, 11)
    assert seen["options"] == {"scale": 0.3, "window_size": (3, 0), "enable_gqa": True}


def test_a_batch_that_is_not_packed_is_refused() -> None:
    with pytest.raises(ValueError, match="packed rows with their bounds"):
        varlen.varlen_attention(torch.nn.Module(), packed(4), packed(2), packed(2), None)


def model_of(**config: Any) -> LlamaForCausalLM:
    """A small model."""
    return LlamaForCausalLM(LlamaConfig(vocab_size=64, **SIZES, **config))


def test_parts_on_cpu(make_spec: MakeSpec) -> None:
    """All but the layers' kernels, which are named with their reason."""
    spec, model = make_spec(training={"backend": "optimized"}), model_of()
    found = optimize(spec, model, CPU, FULL)
    assert found.used == [ATTENTION, OPTIMIZER]
    assert list(found.missing) == [LAYERS]
    assert model.config._attn_implementation == varlen.NAME
    assert optimizer_name(spec) == "adamw_torch_fused"
    assert found.facts() == {
        "backend": "optimized",
        "backendParts": "attention without padding, fused optimizer",
        "backendMissing": "fused layer kernels: the kernels are made for GPUs",
    }


def test_only_what_applies_is_a_part(make_spec: MakeSpec) -> None:
    """Rows that are not packed keep the stock attention; an 8-bit optimizer is fused as it is; standard changes nothing."""
    spec = make_spec(training={"backend": "optimized", "optimizer": "adamw_8bit"}, dataset={"packing": False})
    model = model_of()
    found = optimize(spec, model, CPU, FULL)
    assert (found.used, list(found.missing)) == ([], [LAYERS])
    assert model.config._attn_implementation == "sdpa"
    assert optimizer_name(spec) == "adamw_8bit"
    assert optimizer_name(make_spec()) == "adamw_torch"


@pytest.mark.parametrize(
    ("device", "formats", "config", "said"),
    [
        (CPU, FULL, {}, None),
        (H100, HALF, {}, None),
        (T4, HALF, {}, "older than Ampere"),
        (H100, FULL, {}, "16 bits"),
        (H100, HALF, {"attention_dropout": 0.1}, "drops attention scores out"),
        (H100, HALF, {"attn_logit_softcapping": 50.0}, "caps its attention scores"),
        (H100, HALF, {"attention_chunk_size": 8}, "attends in chunks"),
    ],
)
def test_attention_that_cannot_be_had(device: Device, formats: Formats, config: dict[str, Any], said: str | None) -> None:
    """By device, number format and model."""
    reason = why_no_attention(model_of(**config), device, formats)
    assert (reason is None) if said is None else (reason is not None and said in reason)


def test_models_whose_attention_cannot_be_changed() -> None:
    """A model with attention sinks, and one that brings an attention of its own."""
    sinks, fixed = model_of(), model_of()
    sinks.config.model_type = "gpt_oss"
    fixed._supports_attention_backend = False
    assert why_no_attention(sinks, H100, HALF) == "gpt_oss has attention sinks, which the kernel cannot do"
    assert why_no_attention(fixed, H100, HALF) == "llama does not let its attention be chosen"


def test_every_part_on_a_gpu(make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """B-12: norms, rotary embeddings and feed-forward of every layer are liger-kernel's; the loss stays TRL's. Nothing is missing."""
    for name in ("LlamaRMSNorm", "LlamaMLP", "apply_rotary_pos_emb"):
        monkeypatch.setattr(modeling_llama, name, getattr(modeling_llama, name))
    model = model_of()
    loss = model.forward
    found = optimize(make_spec(training={"backend": "optimized"}), model, H100, HALF)
    assert (found.used, found.missing) == ([ATTENTION, LAYERS, OPTIMIZER], {})
    assert found.facts()["backendMissing"] == ""
    parts = [part for layer in model.model.layers for part in (layer.mlp, layer.input_layernorm, layer.post_attention_layernorm)]
    forwards = [part.forward.__func__ for part in (*parts, model.model.norm)] + [modeling_llama.apply_rotary_pos_emb]
    assert {forward.__module__.partition(".")[0] for forward in forwards} == {"liger_kernel"}
    assert model.forward == loss


def test_layers_need_their_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said where it does not know the model, and where it is not there at all."""
    assert why_no_layers("llama", H100) is None
    assert why_no_layers("own_model", H100) == "liger-kernel does not know own_model"
    monkeypatch.setattr(backend, "find_spec", lambda _name: None)
    assert why_no_layers("llama", H100) == "liger-kernel is not in the image"

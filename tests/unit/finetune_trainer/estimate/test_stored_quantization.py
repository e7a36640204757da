"""A base model that bitsandbytes has stored in 4 bits, as the hub has them: really made by transformers, on CPU (C-09, X32)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM

from finetune_api.resolve import resolve
from finetune_trainer.errors import TrainerError
from finetune_trainer.estimate.decision import decide
from finetune_trainer.estimate.shape import AdapterShape, ModelShape, adapter_parameters, read_shape
from finetune_trainer.sources.model_directory import local_files
from finetune_trainer.stored_quantization import check_mergeable, check_stored_quantization, stored_quantization
from finetune_trainer.vision import read_config
from tests.support.manifests import spec_of

CONFIG = LlamaConfig(
    hidden_size=64,
    intermediate_size=192,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    vocab_size=256,
    max_position_embeddings=512,
)


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same model in 16 bits and in 4."""
    root = tmp_path_factory.mktemp("models")
    plain, packed = root / "plain", root / "packed"
    LlamaForCausalLM(CONFIG).to(torch.bfloat16).save_pretrained(plain)
    four_bits = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
    )
    LlamaForCausalLM.from_pretrained(plain, quantization_config=four_bits).save_pretrained(packed)
    return plain, packed


def shape_of(directory: Path) -> ModelShape:
    shape = read_shape(local_files(directory))
    assert shape is not None
    return shape


def test_packed_matrices_have_their_own_shapes(directories: tuple[Path, Path]) -> None:
    """N-01: parameters, adapters and what stays in 16 bits are those of the model, not those of the packed bytes."""
    plain, packed = (shape_of(directory) for directory in directories)
    assert packed.tensors == plain.tensors
    assert (plain.is_quantized, packed.is_quantized) == (False, True)
    for adapter in (AdapterShape(8, ["q_proj", "v_proj"]), AdapterShape(8, "all-linear")):
        assert adapter_parameters(packed, adapter) == adapter_parameters(plain, adapter) > 0


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_it_counts_as_4_bit(directories: tuple[Path, Path], device: str) -> None:
    """X32: whatever GPU there is, and where nobody asked for it."""
    spec = resolve(spec_of({"resources.device": device})).spec
    found = [
        decide(spec, shape_of(directory), AdapterShape(8, "all-linear"), ranks=1, gpu_bytes=80 * 2**30).is_quantized
        for directory in directories
    ]
    assert found == [False, True]


@pytest.mark.parametrize(
    ("leaves", "said"),
    [
        ({"adapter.type": "full"}, "adapter.type: full, but the model of model.uri is stored in 4 bits"),
        ({"distributed.strategy": "fsdp", "replicas": 2}, "distributed.strategy: fsdp, but the model of model.uri is stored in 4 bits"),
        ({"quantization.mode": "none"}, "quantization.mode: none, but the model of model.uri is stored in 4 bits"),
    ],
)
def test_what_it_cannot_be_used_for_is_refused(directories: tuple[Path, Path], leaves: dict[str, Any], said: str) -> None:
    """X32: 4bit + full = error, though quantization.mode does not say so."""
    plain, packed = (read_config(directory) for directory in directories)
    spec = resolve(spec_of(leaves)).spec
    check_stored_quantization(spec, plain)
    with pytest.raises(TrainerError, match=said):
        check_stored_quantization(spec, packed)
    check_stored_quantization(resolve(spec_of({})).spec, packed)


def test_no_adapter_is_merged_into_it(directories: tuple[Path, Path]) -> None:
    plain, packed = (read_config(directory) for directory in directories)
    check_mergeable(plain)
    with pytest.raises(TrainerError, match=r"stored quantised \(bitsandbytes\)"):
        check_mergeable(packed)


@pytest.mark.parametrize(
    ("entry", "stored"),
    [
        (None, None),
        ({"load_in_4bit": True}, "4bit"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
    ],
)
def test_how_weights_are_stored(entry: dict[str, Any] | None, stored: str | None) -> None:
    """At first bitsandbytes wrote no quant_method."""
    assert stored_quantization({"quantization_config": entry} if entry is not None else {}) == stored

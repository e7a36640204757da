"""Writes a GGUF file from a Hugging Face model directory, tensor by tensor: memory holds one tensor, whatever the model's size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, LlamaFileType, RopeScalingType, get_tensor_name_map
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import quant_shape_to_byte_shape, quantize
from numpy.typing import NDArray
from safetensors import safe_open

from finetune_api.models.output import GgufType
from finetune_trainer.outputs.families import Family, family_of, gguf_error, rope_parameters
from finetune_trainer.outputs.vocabulary import read_vocabulary

Floats: TypeAlias = NDArray[np.float32]
Kind: TypeAlias = GGMLQuantizationType

QUANTIZATION_VERSION: Final = 2
ROPE_FACTORS: Final = "rope_freqs.weight"
OUTER: Final = frozenset({"token_embd.weight", "output.weight"})
"""Where four bits would cost most: a Q4_0 file keeps these in eight, as llama.cpp's own program keeps them in more than four."""
FILE_TYPES: Final[Mapping[GgufType, LlamaFileType]] = {
    "F16": LlamaFileType.MOSTLY_F16,
    "BF16": LlamaFileType.MOSTLY_BF16,
    "Q8_0": LlamaFileType.MOSTLY_Q8_0,
    "Q4_0": LlamaFileType.MOSTLY_Q4_0,
}


@dataclass(frozen=True)
class Tensor:
    """A tensor on its way into the file."""

    name: str
    """In GGUF's naming."""
    source: str
    """In the model directory; empty for one that is computed."""
    shape: tuple[int, ...]
    kind: Kind

    @property
    def stored_bytes(self) -> int:
        """Bytes in the file."""
        block, size = GGML_QUANT_SIZES[self.kind]
        return int(math.prod(self.shape) // block * size)


def write_gguf(model_dir: Path, path: Path, kind: GgufType, name: str) -> None:
    """Write ``path`` from safetensors weights, config.json and tokenizer.json.

    Raises :class:`TrainerError` (ModelError) for architectures, tokenizers and weights that GGUF cannot hold.
    """
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    family = family_of(config)
    weights = Weights(model_dir)
    tensors = plan_tensors(weights, family, config, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, family.architecture)
    try:
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[kind])
        writer.add_quantization_version(QUANTIZATION_VERSION)
        _write_shape(writer, config)
        rows = next(tensor.shape[0] for tensor in tensors if tensor.name == "token_embd.weight")
        writer.add_vocab_size(rows)
        read_vocabulary(model_dir, rows).write(writer)
        for tensor in tensors:
            writer.add_tensor_info(tensor.name, _byte_shape(tensor), _dtype(tensor), tensor.stored_bytes, raw_dtype=tensor.kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            writer.write_tensor_data(_encoded(tensor, weights, family, config))
    finally:
        writer.close()


class Weights:
    """The safetensors files of a model directory, read a tensor at a time."""

    def __init__(self, directory: Path) -> None:
        index = directory / "model.safetensors.index.json"
        if index.is_file():
            self._files: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        else:
            with safe_open(directory / "model.safetensors", framework="pt") as file:
                self._files = dict.fromkeys(file.keys(), "model.safetensors")
        self._directory = directory

    def names(self) -> list[str]:
        """All tensors, in a stable order."""
        return sorted(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor, without reading it."""
        with safe_open(self._directory / self._files[name], framework="pt") as file:
            return tuple(file.get_slice(name).get_shape())

    def read(self, name: str) -> Floats:
        """A tensor in float32."""
        with safe_open(self._directory / self._files[name], framework="pt") as file:
            values: Floats = file.get_tensor(name).to(torch.float32).numpy()
        return values


def plan_tensors(weights: Weights, family: Family, config: Mapping[str, Any], kind: GgufType) -> list[Tensor]:
    """Name, shape and number format of every tensor of the file. Raises :class:`TrainerError` for a weight GGUF has no name for."""
    architecture = next(number for number, name in MODEL_ARCH_NAMES.items() if name == family.architecture)
    names = get_tensor_name_map(MODEL_ARCH(architecture), int(config["num_hidden_layers"]))
    tensors = []
    for source in weights.names():
        if source.endswith(".rotary_emb.inv_freq"):
            continue
        name = names.get_name(source, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise gguf_error(f"the model has a weight {source}, for which GGUF's {family.architecture} layout has no place")
        shape = weights.shape(source)
        tensors.append(Tensor(name, source, shape, kind_of(name, shape, kind)))
    if rope_parameters(config).get("rope_type") == "llama3":
        tensors.append(Tensor(ROPE_FACTORS, "", (head_size(config) // 2,), Kind.F32))
    return tensors


def kind_of(name: str, shape: tuple[int, ...], wanted: GgufType) -> Kind:
    """Number format of one tensor: vectors stay F32; rows that do not fill blocks of 32 become F16."""
    if len(shape) == 1:
        return Kind.F32
    kind = Kind.Q8_0 if wanted == "Q4_0" and name in OUTER else getattr(Kind, wanted)
    block, _ = GGML_QUANT_SIZES[kind]
    return kind if shape[-1] % block == 0 else Kind.F16


def _encoded(tensor: Tensor, weights: Weights, family: Family, config: Mapping[str, Any]) -> NDArray[Any]:
    values = rope_factors(config) if tensor.name == ROPE_FACTORS else weights.read(tensor.source)
    if family.permutes_heads and ".attn_q." in tensor.name:
        values = permute_heads(values, int(config["num_attention_heads"]))
    if family.permutes_heads and ".attn_k." in tensor.name:
        values = permute_heads(values, int(config.get("num_key_value_heads") or config["num_attention_heads"]))
    with np.errstate(over="ignore"):
        encoded: NDArray[Any] = quantize(np.ascontiguousarray(values), tensor.kind)
    if tensor.kind is Kind.F16 and not np.isfinite(encoded).all():
        raise gguf_error(f"{tensor.source} has values beyond float16's 65504; use BF16 instead of F16")
    return encoded


def permute_heads(values: Floats, heads: int) -> Floats:
    """Reorder rows so that the halves of a head, which transformers rotates together, become neighbouring pairs."""
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))


def head_size(config: Mapping[str, Any]) -> int:
    """Width of an attention head."""
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def rope_factors(config: Mapping[str, Any]) -> Floats:
    """Divisors of the rotary frequencies of Llama 3.1 and later.

    High frequencies stay, low ones are divided by ``factor``, those between are interpolated (transformers' ``rope_type: llama3``).
    """
    rope = rope_parameters(config)
    factor, old = float(rope["factor"]), float(rope["original_max_position_embeddings"])
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    exponents = np.arange(0, head_size(config), 2, dtype=np.float64) / head_size(config)
    turns = old / (2 * math.pi * float(rope["rope_theta"]) ** exponents)
    smooth = np.clip((turns - low) / (high - low), 0, 1)
    return (1 / ((1 - smooth) / factor + smooth)).astype(np.float32)


def _write_shape(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    """Sizes and rotary settings."""
    heads = int(config["num_attention_heads"])
    rope = rope_parameters(config)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_key_length(head_size(config))
    writer.add_value_length(head_size(config))
    writer.add_rope_dimension_count(head_size(config))
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    scaling = {"linear": RopeScalingType.LINEAR, "yarn": RopeScalingType.YARN}.get(str(rope.get("rope_type")))
    if scaling is not None:
        writer.add_rope_scaling_type(scaling)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if scaling is RopeScalingType.YARN:
        writer.add_rope_scaling_orig_ctx_len(int(rope.get("original_max_position_embeddings") or config["max_position_embeddings"]))


def _byte_shape(tensor: Tensor) -> tuple[int, ...]:
    """Shape as the writer wants it: of bytes where values lie in blocks."""
    return quant_shape_to_byte_shape(tensor.shape, tensor.kind) if _dtype(tensor) == np.uint8 else tensor.shape


def _dtype(tensor: Tensor) -> np.dtype[Any]:
    plain: dict[Kind, np.dtype[Any]] = {Kind.F32: np.dtype(np.float32), Kind.F16: np.dtype(np.float16)}
    return plain.get(tensor.kind, np.dtype(np.uint8))


def tensors_of(path: Path) -> Iterator[tuple[str, Floats]]:
    """Every tensor of a GGUF file, dequantised to float32, in torch's order of dimensions."""
    from gguf import GGUFReader
    from gguf.quants import dequantize

    for tensor in GGUFReader(path).tensors:
        shape = tuple(int(size) for size in reversed(tensor.shape))
        yield tensor.name, dequantize(tensor.data, tensor.tensor_type).reshape(shape)

"""The shape of a model: sizes from its config.json, every tensor from the headers of its safetensors files."""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetune_api.models.spec import Adapter
from finetune_trainer.sources.model_directory import CONFIG, ModelFiles
from finetune_trainer.stored_quantization import stored_quantization
from finetune_trainer.targets import ALL_LINEAR, check_modules, target_modules
from finetune_trainer.vision import is_vision

PLAINLY_NAMED: Final = frozenset(
    {
        "bloom", "cohere", "falcon", "gemma", "gemma2", "gemma3_text", "gpt2", "gpt_neox", "granite", "llama", "mistral", "olmo", "olmo2",
        "opt", "phi", "phi3", "qwen2", "qwen2_5_vl", "qwen2_vl", "qwen3", "smollm3", "stablelm", "starcoder2",
    }
)  # fmt: skip
"""``model_type`` of models whose modules have the names of the tensors in their files; transformers renames others while it loads."""
HEADS: Final = ("lm_head", "output", "embed_out", "score")
EMBEDDINGS: Final = re.compile(r"(^|\.)(embed_tokens|wte|word_embeddings|embed_in|embeddings?)$")

PACKED_PART: Final = re.compile(r"\.weight\.(?:absmax|quant_map|nested_absmax|nested_quant_map|quant_state\.bitsandbytes__\w+)$")
"""Beside a matrix that bitsandbytes has packed."""
PACKED_STATE: Final = re.compile(r"(.+\.weight)\.quant_state\.bitsandbytes__\w+")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder model."""

    tensors: Mapping[str, tuple[int, ...]]
    """Module name (without ``.weight``) -> shape, for every weight matrix; other parameters by their full names."""
    hidden: int
    layers: int
    key_values: int
    """Width of keys, or values, of all key-value heads."""
    feed_forward: int
    vocabulary: int
    context: int
    family: str = ""
    """``model_type`` of config.json."""
    is_quantized: bool = False
    """It is stored in 4 bits (bitsandbytes); shapes are those of its matrices all the same."""

    @property
    def parameters(self) -> int:
        """All parameters; tensors shared by several modules are in the files once."""
        return sum(math.prod(shape) for shape in self.tensors.values())

    @property
    def kept_parameters(self) -> int:
        """Parameters that 4-bit loading leaves as they are: embeddings, head, everything that is no matrix."""
        kept = (len(shape) != 2 or is_head(name) or is_embedding(name) or is_vision(name) for name, shape in self.tensors.items())
        return sum(math.prod(shape) for shape, is_kept in zip(self.tensors.values(), kept, strict=True) if is_kept)

    @property
    def vision_parameters(self) -> int:
        """Parameters of the vision tower and the projector."""
        return sum(math.prod(shape) for name, shape in self.tensors.items() if is_vision(name))


@dataclass(frozen=True)
class AdapterShape:
    """What decides on the size of an adapter."""

    rank: int
    targets: list[str] | str
    """Last names of modules, or ``all-linear``, or a pattern for whole names."""
    extends: bool = True
    """In a vision part it sits on every matrix, whatever the names; a PEFT file means what it says."""


def read_shape(files: ModelFiles) -> ModelShape | None:
    """Read a model's shape; None where its weights are in a format without headers, or its config lacks the sizes.

    Matrices that bitsandbytes has packed into 4 bits have their own shapes here; nothing is said of other quantised files.
    """
    config = json.loads(files.read(CONFIG, 0, files.sizes[CONFIG]))
    text = config.get("text_config") or config
    stored, tensors = stored_quantization(config), dict[str, tuple[int, ...]]()
    if stored not in (None, "4bit"):
        return None
    try:
        for name in sorted(name for name in files.sizes if name.endswith(".safetensors") and "/" not in name):
            tensors |= packed_shapes(files, name) if stored == "4bit" else tensor_shapes(files, name)
        hidden, heads = int(text["hidden_size"]), int(text["num_attention_heads"])
        head_width = int(text.get("head_dim") or hidden // heads)
        return (
            ModelShape(
                tensors=tensors,
                hidden=hidden,
                layers=int(text["num_hidden_layers"]),
                key_values=int(text.get("num_key_value_heads") or heads) * head_width,
                feed_forward=int(text.get("intermediate_size") or 4 * hidden),
                vocabulary=int(text["vocab_size"]),
                context=int(text.get("max_position_embeddings") or 0),
                family=str(config.get("model_type") or ""),
                is_quantized=stored == "4bit",
            )
            if tensors
            else None
        )
    except (KeyError, TypeError, ValueError):
        return None


def adapter_shape(adapter: Adapter, peft_config: Path | None) -> AdapterShape:
    """Take rank and targets from the spec, or from the PEFT file that replaces them. The file has been checked to be JSON."""
    if peft_config is None:
        return AdapterShape(adapter.rank, target_modules(adapter))
    return shape_of_file(json.loads(peft_config.read_text(encoding="utf-8")))


def shape_of_file(document: Mapping[str, Any]) -> AdapterShape:
    """Take rank and targets from a PEFT file."""
    return AdapterShape(int(document.get("r", 8)), document.get("target_modules") or [], extends=False)


def adapter_parameters(model: ModelShape, adapter: AdapterShape, *, sees: bool = True) -> int:
    """Count a LoRA adapter's parameters: rank x (inputs + outputs) of every matrix it sits on (AC-75).

    Without ``sees`` it stays off the vision part.
    """

    def carries(name: str) -> bool:
        if not is_vision(name):
            return _is_target(name, adapter.targets)
        return sees and ((adapter.extends and not is_embedding(name)) or _is_target(name, adapter.targets))

    return sum(adapter.rank * sum(shape) for name, shape in model.tensors.items() if len(shape) == 2 and carries(name))


def adapted_modules(model: ModelShape, adapter: AdapterShape) -> list[str]:
    """Last names of the matrices of the language part that an adapter sits on, in the order of their names."""
    names = (name for name, shape in model.tensors.items() if len(shape) == 2 and not is_vision(name) and _is_target(name, adapter.targets))
    return sorted({name.rpartition(".")[2] for name in names})


def check_targets(model: ModelShape, adapter: AdapterShape) -> None:
    """Refuse an adapter on modules that the model does not have, where the names in its files are those of its modules.

    Raises :class:`TrainerError` (ModelError) listing those it has.
    """
    if model.family not in PLAINLY_NAMED or isinstance(adapter.targets, str):
        return
    matrices = (name for name, shape in model.tensors.items() if len(shape) == 2 and not is_vision(name))
    # An output layer that shares its weights with the embedding is in no file.
    check_modules((name for name in adapter.targets if not is_head(name)), {name.rpartition(".")[2] for name in matrices})


def is_head(name: str) -> bool:
    """Whether a module is the output layer."""
    return name.rpartition(".")[2] in HEADS


def is_embedding(name: str) -> bool:
    """Whether a module is an embedding."""
    return bool(EMBEDDINGS.search(name))


def _is_target(name: str, targets: list[str] | str) -> bool:
    if targets == ALL_LINEAR:
        return not is_head(name) and not is_embedding(name)
    if isinstance(targets, str):
        return bool(re.fullmatch(targets, name))
    return any(name == target or name.endswith(f".{target}") for target in targets)


def tensor_shapes(files: ModelFiles, name: str) -> dict[str, tuple[int, ...]]:
    """Names, without ``.weight``, and shapes in one file's header."""
    header, _ = _header(files, name)
    return {key.removesuffix(".weight"): tuple(entry["shape"]) for key, entry in header.items()}


def packed_shapes(files: ModelFiles, name: str) -> dict[str, tuple[int, ...]]:
    """The same of a file by bitsandbytes: what belongs to a packed matrix is left out, its shape is the one before packing.

    That is beside the matrix, as JSON in a tensor. Equal modules have equal shapes, so that it is read once for each name and size.
    """
    header, start = _header(files, name)
    states = {match[1]: entry for key, entry in header.items() if (match := PACKED_STATE.fullmatch(key)) is not None}
    known: dict[tuple[str, int], tuple[int, ...]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for key, entry in header.items():
        module = key.removesuffix(".weight")
        if key in states:
            kind = (module.rpartition(".")[2], math.prod(entry["shape"]))
            if kind not in known:
                first, end = states[key]["data_offsets"]
                known[kind] = tuple(json.loads(files.read(name, start + first, end - first))["shape"])
            shapes[module] = known[kind]
        elif not PACKED_PART.search(key):
            shapes[module] = tuple(entry["shape"])
    return shapes


def _header(files: ModelFiles, name: str) -> tuple[dict[str, Any], int]:
    """Tensors of a file, and where their bytes begin."""
    (length,) = struct.unpack("<Q", files.read(name, 0, 8))
    header = json.loads(files.read(name, 8, length))
    return {key: entry for key, entry in header.items() if key != "__metadata__"}, 8 + length

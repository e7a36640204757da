"""Is this a directory one can train from (C-10..C-12)? Looks at names, config.json and safetensors headers; weights are never loaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_trainer.sources.context import Source, source_error

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model", "tekken.json")
LEGACY_WEIGHTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin")
MAX_HEADER_BYTES = 100 * 1024 * 1024
LEGACY_CONDITION = "LegacyWeights"


@dataclass(frozen=True)
class ModelFiles:
    """Files of a model wherever they are, with the means to read a few bytes of them."""

    sizes: Mapping[str, int]
    read: Callable[[str, int, int], bytes]
    """(name, start, length) -> bytes."""


def local_files(directory: Path) -> ModelFiles:
    """Files of a directory on disk."""

    def read(name: str, start: int, length: int) -> bytes:
        with (directory / name).open("rb") as file:
            file.seek(start)
            return file.read(length)

    sizes = {path.relative_to(directory).as_posix(): path.stat().st_size for path in directory.rglob("*") if path.is_file()}
    return ModelFiles(sizes, read)


def check_model(source: Source, files: ModelFiles) -> dict[str, str]:
    """Warnings (condition -> message) of a trainable model directory; raises ModelError that names the missing or broken file."""
    names = set(files.sizes)
    gguf = sorted(name for name in names if name.lower().endswith(".gguf"))
    if gguf and CONFIG not in names:
        raise source_error(
            source, f"{gguf[0]} is a GGUF file: made for inference, it cannot be trained. Use the model's safetensors directory."
        )
    if CONFIG not in names:
        raise source_error(source, "config.json is missing: not a model directory in Hugging Face format.")
    _check_config(source, files)
    weights = sorted(name for name in names if name.endswith(".safetensors") and "/" not in name)
    if not weights:
        return _check_legacy(source, names)
    if INDEX in names:
        _check_index(source, files)
    for name in weights:
        check_header(source, files, name)
    return {}


def check_tokenizer(source: Source, names: Mapping[str, int]) -> None:
    """Raise ModelError when no tokenizer file is there."""
    if not any(name in names for name in TOKENIZER_FILES):
        raise source_error(source, f"no tokenizer: one of {', '.join(TOKENIZER_FILES[:3])} is needed, or set model.tokenizer.uri.")


def is_needed(name: str, all_names: frozenset[str]) -> bool:
    """Whether a model's file is worth fetching: weights in one format only, nothing of other frameworks."""
    if "/" in name or name.endswith((".gguf", ".onnx", ".h5", ".msgpack", ".pth", ".md", ".png", ".jpg")):
        return False
    has_safetensors = any(other.endswith(".safetensors") for other in all_names)
    return not (has_safetensors and name.endswith((".bin", ".bin.index.json", ".pt")))


def read_json(source: Source, files: ModelFiles, name: str) -> Any:
    """Read a JSON file of a model; raises the source's error for what is none."""
    try:
        return json.loads(files.read(name, 0, files.sizes[name]))
    except ValueError as error:
        raise source_error(source, f"{name} is no JSON: {error}.") from error


def _check_config(source: Source, files: ModelFiles) -> None:
    config = read_json(source, files, CONFIG)
    if not isinstance(config, dict) or not (config.get("model_type") or config.get("architectures")):
        raise source_error(source, "config.json names no model_type.")


def _check_legacy(source: Source, names: set[str]) -> dict[str, str]:
    if any(name in names for name in LEGACY_WEIGHTS) or any(name.startswith("pytorch_model-") for name in names):
        return {LEGACY_CONDITION: f"{source.uri} has only .bin weights (pickled): safetensors are safer and load faster."}
    raise source_error(source, "no weights: a .safetensors file (or, discouraged, pytorch_model.bin) is missing.")


def _check_index(source: Source, files: ModelFiles) -> None:
    try:
        index = json.loads(files.read(INDEX, 0, files.sizes[INDEX]))
        shards = sorted(set(index["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise source_error(source, f"{INDEX} cannot be read: {error!r}.") from error
    missing = [shard for shard in shards if shard not in files.sizes]
    if missing:
        raise source_error(source, f"{missing[0]} is missing, {INDEX} names it ({len(missing)} of {len(shards)} shards are missing).")


def check_header(source: Source, files: ModelFiles, name: str) -> None:
    """Raise for a broken safetensors file: it is 8 bytes of header length, a JSON header, and data up to the largest offset in it."""
    size = files.sizes[name]
    start = files.read(name, 0, 8)
    if len(start) < 8:
        raise source_error(source, f"{name} is empty or cut short ({size} bytes).")
    (length,) = struct.unpack("<Q", start)
    if length > min(MAX_HEADER_BYTES, size - 8):
        raise source_error(source, f"{name} is no safetensors file, or cut short ({size} bytes).")
    try:
        header = json.loads(files.read(name, 8, length))
        end = max((entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise source_error(source, f"{name} has a broken safetensors header.") from error
    if size != 8 + length + end:
        raise source_error(source, f"{name} has {size} bytes, its header says {8 + length + end}: the upload is incomplete.")

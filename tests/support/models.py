"""Model directories for tests of names and headers: no weights worth the name."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def safetensors_bytes(values: int = 2) -> bytes:
    """A safetensors file with one float32 tensor."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [values], "data_offsets": [0, 4 * values]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 4 * values


def model_files() -> dict[str, bytes]:
    """A complete trainable model directory (C-10)."""
    return {
        "config.json": json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}).encode(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": b"{}",
        "model.safetensors": safetensors_bytes(),
    }


def write_sizes(directory: Path, config: Mapping[str, Any], shapes: Mapping[str, list[int]]) -> None:
    """A model of any size: a config, and a header for tensors that are not there."""
    header = json.dumps({name: {"dtype": "BF16", "shape": shape, "data_offsets": [0, 0]} for name, shape in shapes.items()}).encode()
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)

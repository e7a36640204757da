"""A model's shape from its files, and an adapter's size on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_api.resolve import resolve
from finetune_trainer.estimate.shape import AdapterShape, adapter_parameters, adapter_shape, read_shape
from finetune_trainer.sources.model_directory import local_files
from tests.support.manifests import spec_of
from tests.support.models import model_files, write_sizes
from tests.support.shapes import LLAMA_8B

CONFIG = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "vocab_size": 512,
    "max_position_embeddings": 1024,
}


def test_sizes_and_tensors(tmp_path: Path) -> None:
    write_sizes(
        tmp_path, CONFIG, {"model.embed_tokens.weight": [512, 64], "model.norm.weight": [64], "model.layers.0.q_proj.weight": [64, 64]}
    )
    shape = read_shape(local_files(tmp_path))
    assert shape is not None
    assert (shape.hidden, shape.layers, shape.key_values, shape.feed_forward, shape.vocabulary, shape.context) == (
        64,
        2,
        32,
        128,
        512,
        1024,
    )
    assert shape.parameters == 512 * 64 + 64 + 64 * 64
    assert shape.kept_parameters == 512 * 64 + 64


def test_language_part_of_a_vision_model(tmp_path: Path) -> None:
    write_sizes(tmp_path, {"model_type": "qwen2_5_vl", "text_config": CONFIG}, {"lm_head.weight": [512, 64]})
    shape = read_shape(local_files(tmp_path))
    assert shape is not None
    assert shape.hidden == 64


def test_models_nothing_can_be_said_of(tmp_path: Path) -> None:
    for name, content in model_files().items():
        (tmp_path / name).write_bytes(content)
    assert read_shape(local_files(tmp_path)) is None


@pytest.mark.parametrize(
    ("targets", "parameters"),
    [
        (["q_proj", "v_proj"], 32 * 16 * (8192 + 5120)),
        ("all-linear", 41_943_040),
        (["embed_tokens"], 16 * (128256 + 4096)),
        (r"model\.layers\.0\..*_proj", 41_943_040 // 32),
        (["absent"], 0),
    ],
)
def test_adapter_parameters(targets: list[str] | str, parameters: int) -> None:
    """AC-75 and the shorthands: rank x (inputs + outputs) of each matrix."""
    assert adapter_parameters(LLAMA_8B, AdapterShape(16, targets)) == parameters


def test_a_peft_file_replaces_the_spec(tmp_path: Path) -> None:
    """G-10."""
    adapter = resolve(spec_of({"adapter.rank": 8, "adapter.targetModules": ["enhanced"]})).spec.adapter
    assert adapter_shape(adapter, None) == AdapterShape(8, ["q_proj", "k_proj", "v_proj", "o_proj"])
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"r": 4, "target_modules": "all-linear"}))
    assert adapter_shape(adapter, file) == AdapterShape(4, "all-linear", extends=False)

"""A model with code of its own: the tiny Llama under a name that no library knows."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Final

CONFIGURATION: Final = """
from transformers import LlamaConfig


class OwnConfig(LlamaConfig):
    model_type = "own_llama"
"""
MODELING: Final = """
import torch
from transformers import LlamaForCausalLM

from .configuration_own import OwnConfig


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.model.norm.register_forward_hook(lambda module, inputs, output: output * 0.5)
"""
"""Not a Llama by another name: logits differ from the library's."""


def write_own(model: Path, directory: Path) -> Path:
    """Copy a Llama directory, with code that alone can load it."""
    shutil.copytree(model, directory)
    config = json.loads((directory / "config.json").read_text())
    config |= {
        "model_type": "own_llama",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"},
    }
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "configuration_own.py").write_text(CONFIGURATION)
    (directory / "modeling_own.py").write_text(MODELING)
    return directory

"""Vision-language models: which ones are known, which of their weights see and which speak."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from finetune_api.models.sources import ModelType
from finetune_api.models.spec import FineTuneJobSpec
from finetune_trainer.errors import configuration_error

FAMILIES: Final = ("qwen2_vl", "qwen2_5_vl")
"""``model_type`` of config.json. Known are those whose images, masks and frozen parts are held by tests."""
METHODS: Final = frozenset({"sft"})
ZIP_FORMAT: Final = "vlm-zip"
VISION_PATTERN: Final = r"(?:.*\.)?(?:visual|vision_tower|vision_model|multi_modal_projector)\."
"""Begins the name of every weight and module of a vision tower or projector, in files and in the loaded model alike."""
PROCESSOR_FILES: Final = ("preprocessor_config.json", "processor_config.json")
"""One of them says how images become numbers."""
VIDEO_PROCESSOR_FILE: Final = "video_preprocessor_config.json"
_VISION: Final = re.compile(VISION_PATTERN)


def has_vision(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a model with a vision part."""
    return isinstance(config.get("vision_config"), Mapping)


def is_vision(name: str) -> bool:
    """Whether a weight or module belongs to the vision tower or the projector; the rest of a model is its language part."""
    return _VISION.match(f"{name}.") is not None


def read_config(directory: Path) -> dict[str, Any]:
    """Read the config.json of a model on local disk; empty where there is none."""
    file = directory / "config.json"
    document = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return document if isinstance(document, dict) else {}


def model_type(spec: FineTuneJobSpec, config: Mapping[str, Any]) -> ModelType:
    """Return what is trained of the model: as the job says, else by its config (B-11, C-07).

    Raises :class:`TrainerError` (ConfigurationError) for what cannot be trained together.
    """
    name = config.get("model_type", "of no named type")
    if not has_vision(config):
        if spec.model.type == "VLM":
            raise configuration_error(f"model.type: VLM, but model.uri is a {name} model without a vision part; write LLM, or name a VLM")
        if any(part.format == ZIP_FORMAT for part in spec.dataset.parts):
            raise configuration_error(
                f"dataset.format: {ZIP_FORMAT} is for vision-language models, and model.uri is a {name} model without one"
            )
        return "LLM"
    if spec.method not in METHODS:
        raise configuration_error(
            f"method: {spec.method} trains language models, and model.uri is a vision-language model ({name}); write method: sft, or name "
            "a language model"
        )
    if name not in FAMILIES:
        raise configuration_error(f"model.uri: vision-language models of type {name} are not known here; {', '.join(FAMILIES)} are")
    if spec.dataset.lazy_tokenize or spec.dataset.streaming:
        raise configuration_error(
            "dataset.lazyTokenize, dataset.streaming: rows of a vision-language model are prepared before the training, with their images; "
            "leave both out"
        )
    if spec.adapter.attach is not None:
        raise configuration_error("adapter.attach: an adapter on a vision-language model begins anew here; leave it out")
    if spec.dataset.packing:
        raise configuration_error(
            "dataset.packing: rows of a vision-language model are not packed; write packing: false "
            "(training.backend optimized packs unless it is written)"
        )
    return spec.model.type or "VLM"

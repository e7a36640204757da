"""Which models can become GGUF files, judged by config.json and tokenizer.json alone, so that preflight can refuse the others by name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.outputs.splits import pre_tokenizer_of

FIELD: Final = "output.export.gguf"


@dataclass(frozen=True)
class Family:
    """How llama.cpp lays a kind of model out."""

    architecture: str
    """``general.architecture``."""
    permutes_heads: bool
    """Whether its rotary embedding takes neighbouring pairs, where transformers takes halves: rows of q and k change places."""


FAMILIES: Final[Mapping[str, Family]] = {
    "llama": Family("llama", permutes_heads=True),
    "qwen2": Family("qwen2", permutes_heads=False),
    "qwen3": Family("qwen3", permutes_heads=False),
}
"""``model_type`` of config.json -> layout."""
ROPE_TYPES: Final = ("default", "linear", "llama3", "yarn")


def family_of(config: Mapping[str, Any]) -> Family:
    """Return the layout of a model. Raises :class:`TrainerError` (ModelError) that names the architecture and those that can be written."""
    kind = config.get("model_type")
    family = FAMILIES.get(str(kind))
    if family is None:
        named = ", ".join(config.get("architectures") or ()) or "no architecture named"
        raise gguf_error(f"model_type {kind!r} ({named}) cannot be written as GGUF here; {', '.join(FAMILIES)} can")
    rope = rope_parameters(config).get("rope_type", "default")
    if rope not in ROPE_TYPES:
        raise gguf_error(f"rope_type {rope!r} of this {kind} model cannot be written as GGUF; {', '.join(ROPE_TYPES)} can")
    if config.get("use_sliding_window"):
        raise gguf_error(f"this {kind} model uses sliding windows (use_sliding_window), which its GGUF layout cannot say")
    return family


def check_gguf(config: Mapping[str, Any], tokenizer: Mapping[str, Any] | None) -> None:
    """Refuse what cannot become a GGUF file, before anything is trained; ``tokenizer`` is tokenizer.json where there is one."""
    family_of(config)
    if tokenizer is None:
        raise gguf_error("the model has no tokenizer.json, from which the vocabulary is taken")
    pre_tokenizer_of(tokenizer)


def check_directory(model_dir: Path, tokenizer_dir: Path) -> None:
    """The same of a model and a tokenizer on local disk."""
    file = tokenizer_dir / "tokenizer.json"
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    check_gguf(config, json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None)


def rope_parameters(config: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings under today's names: ``rope_parameters``, or the older ``rope_scaling`` beside ``rope_theta``."""
    found = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    if "type" in found:
        found.setdefault("rope_type", found.pop("type"))
    if "rope_theta" in config:
        found.setdefault("rope_theta", config["rope_theta"])
    return found


def gguf_error(problem: str) -> TrainerError:
    """Build the error of a model that cannot become a GGUF file."""
    return TrainerError(FailureClass.MODEL, f"{FIELD}: {problem}; set {FIELD}.enabled to false")

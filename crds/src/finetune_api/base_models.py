"""The BaseModels every installation has (C-08, C-09), with what is known of them.

Parameters and context are those of the architecture, from its config.json. Bytes per parameter in 4 bits are what such loading leaves:
0.516 for the matrices of the language part (nf4, doubly quantised), 2 for embeddings, output layer, norms and vision part.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_GATED: Final = "Gated: accept its licence on the hub, and name a token in the job's secrets.huggingface."


def _entry(name: str, uri: str, parameters: int, context: int, four_bit: float, **more: Any) -> Mapping[str, Any]:
    """A language model in 16 bits, unless ``more`` says otherwise."""
    return {
        "displayName": name,
        "uri": uri,
        "type": "LLM",
        "parameters": parameters,
        "contextLength": context,
        "bytesPerParameter": {"bfloat16": 2, "fourBit": four_bit},
        **more,
    }


SHIPPED_BASE_MODELS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama-3.1-8b-instruct": _entry(
        "Llama 3.1 8B Instruct", "hf://meta-llama/Llama-3.1-8B-Instruct", 8_030_261_248, 131_072, 0.71, description=_GATED
    ),
    "llama-3.2-1b-instruct": _entry(
        "Llama 3.2 1B Instruct", "hf://meta-llama/Llama-3.2-1B-Instruct", 1_235_814_400, 131_072, 0.83, description=_GATED
    ),
    "llama-3.2-3b-instruct": _entry(
        "Llama 3.2 3B Instruct", "hf://meta-llama/Llama-3.2-3B-Instruct", 3_212_749_824, 131_072, 0.7, description=_GATED
    ),
    "llama-3.2-11b-vision-instruct": _entry(
        "Llama 3.2 11B Vision Instruct",
        "hf://meta-llama/Llama-3.2-11B-Vision-Instruct",
        10_670_220_835,
        131_072,
        0.79,
        type="VLM",
        description="Not eligible: of vision-language models the trainer knows the types qwen2_vl and qwen2_5_vl, and refuses this one, "
        f"mllama, by name. {_GATED}",
        eligible=False,
    ),
    "qwen2.5-3b-instruct": _entry("Qwen2.5 3B Instruct", "hf://Qwen/Qwen2.5-3B-Instruct", 3_085_938_688, 32_768, 0.67),
    "qwen2.5-14b-instruct": _entry("Qwen2.5 14B Instruct", "hf://Qwen/Qwen2.5-14B-Instruct", 14_770_033_664, 32_768, 0.67),
    "qwen2.5-vl-7b-instruct": _entry(
        "Qwen2.5-VL 7B Instruct", "hf://Qwen/Qwen2.5-VL-7B-Instruct", 8_292_166_656, 128_000, 0.83, type="VLM"
    ),
    "falcon-7b-instruct": _entry(
        "Falcon 7B Instruct",
        "hf://tiiuae/falcon-7b-instruct",
        6_921_720_704,
        2_048,
        0.58,
        description="Its attention has one matrix for queries, keys and values, which the adapter therefore sits on.",
        defaults={"adapter": {"targetModules": ["query_key_value"], "allowCustomModules": True}},
    ),
    "llama-3.1-8b-instruct-bnb-4bit": _entry(
        "Llama 3.1 8B Instruct, stored in 4 bits",
        "hf://unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit",
        8_030_261_248,
        131_072,
        0.71,
        description="Quantised beforehand: a third of the download, for adapters only. No adapter can be merged into it.",
        bytesPerParameter={"fourBit": 0.71},
        defaults={"quantization": {"mode": "4bit"}},
    ),
}
"""By name."""

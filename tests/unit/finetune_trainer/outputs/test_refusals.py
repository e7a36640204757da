"""What cannot become GGUF is refused by name, from config.json and tokenizer.json alone."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.outputs.families import check_gguf, rope_parameters
from finetune_trainer.outputs.splits import REGEXES, SENTENCE_PIECE, pre_tokenizer_of

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
BPE = {"model": {"type": "BPE"}, "pre_tokenizer": {"type": "ByteLevel", "use_regex": True}}


def split_by(regex: str) -> dict[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": regex}}
    return {
        "model": {"type": "BPE"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, {"type": "ByteLevel", "use_regex": False}]},
    }


@pytest.mark.parametrize(
    ("config", "tokenizer", "named"),
    [
        ({"model_type": "gemma3", "architectures": ["Gemma3ForCausalLM"]}, BPE, "Gemma3ForCausalLM"),
        ({"model_type": "mixtral"}, BPE, "'mixtral'"),
        ({}, BPE, "None"),
        ({**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, BPE, "'dynamic'"),
        ({"model_type": "qwen2", "use_sliding_window": True}, BPE, "sliding windows"),
        (LLAMA, None, "no tokenizer.json"),
        (LLAMA, {"model": {"type": "Unigram"}}, "'Unigram'"),
        (LLAMA, split_by(r"\w+"), "Split and ByteLevel"),
        (LLAMA, {"model": {"type": "BPE"}, "pre_tokenizer": None}, "splits text by nothing"),
    ],
)
def test_refused_by_name(config: dict[str, Any], tokenizer: dict[str, Any] | None, named: str) -> None:
    """W-04: ModelError, what was found, what would do, and the field to turn off."""
    with pytest.raises(TrainerError, match=r"set output\.export\.gguf\.enabled to false") as caught:
        check_gguf(config, tokenizer)
    assert named in caught.value.message
    assert caught.value.failure_class is FailureClass.MODEL


@pytest.mark.parametrize(
    ("tokenizer", "name"),
    [
        (BPE, "gpt-2"),
        *((split_by(regex), name) for regex, name in REGEXES.items()),
        ({"model": {"type": "BPE", "byte_fallback": True}, "pre_tokenizer": {"type": "Metaspace"}}, SENTENCE_PIECE),
        ({"model": {"type": "BPE", "byte_fallback": True}}, SENTENCE_PIECE),
        (
            {
                "model": {"type": "BPE"},
                "pre_tokenizer": {
                    "type": "Sequence",
                    "pretokenizers": [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}],
                },
            },
            "smollm",
        ),
    ],
)
def test_ways_of_splitting(tokenizer: dict[str, Any], name: str) -> None:
    assert pre_tokenizer_of(tokenizer) == name


def test_rope_settings_of_every_age() -> None:
    """rope_parameters of today, rope_scaling with type or rope_type of before."""
    wanted = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6}
    assert rope_parameters({"rope_parameters": dict(wanted)}) == wanted
    assert rope_parameters({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 1e6}) == wanted
    assert rope_parameters({"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_theta": 1e6}) == wanted

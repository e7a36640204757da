"""LoRA configurations and their size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from finetune_trainer.errors import TrainerError
from finetune_trainer.worker.adapter import BaseName, lora_config, public_name
from finetune_trainer.worker.facts import parameter_counts
from finetune_trainer.worker.strategies import sharing_of
from tests.unit.finetune_trainer.worker.conftest import MakeSpec

LLAMA_8B: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
}


def skeleton(**sizes: Any) -> PreTrainedModel:
    """A Llama without weights."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(LlamaConfig(**sizes))
    return model


@pytest.fixture(scope="module")
def small() -> PreTrainedModel:
    """One layer."""
    return skeleton(hidden_size=8, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=16)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft asks by the old name
def test_llama_8b(make_spec: MakeSpec) -> None:
    """AC-75: r 16 on q_proj and v_proj of Llama-3.1-8B: 6 815 744 trainable parameters."""
    model = skeleton(**LLAMA_8B)
    adapted = get_peft_model(model, lora_config(make_spec().adapter, model, None))
    assert parameter_counts(adapted, sharing_of("none")) == (6_815_744, 8_030_261_248 + 6_815_744)


@pytest.mark.parametrize(("alpha", "scaling"), [(16, 1.0), (32, 2.0), (None, 1.0)])
def test_scaling(make_spec: MakeSpec, small: PreTrainedModel, alpha: int | None, scaling: float) -> None:
    """AC-20: alpha / rank; unset alpha is the rank."""
    block = {"rank": 16} if alpha is None else {"rank": 16, "alpha": alpha}
    config = lora_config(make_spec(adapter=block).adapter, small, None)
    assert config.lora_alpha / config.r == scaling


def test_a_peft_file_replaces_the_fields(make_spec: MakeSpec, small: PreTrainedModel, tmp_path: Path) -> None:
    """G-10: rank, alpha, dropout and modules are the file's; whose adapter it was is forgotten."""
    file = tmp_path / "adapter_config.json"
    document = {
        "peft_type": "LORA",
        "base_model_name_or_path": "other/model",
        "inference_mode": True,
        "r": 4,
        "lora_alpha": 12,
        "lora_dropout": 0.1,
        "target_modules": ["o_proj"],
        "use_rslora": True,
    }
    file.write_text(json.dumps(document))
    config = lora_config(make_spec().adapter, small, file)
    assert (config.r, config.lora_alpha, config.lora_dropout, config.use_rslora) == (4, 12, 0.1, True)
    assert config.target_modules == {"o_proj"}
    assert config.base_model_name_or_path is None
    assert not config.inference_mode


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "adapter.peftConfig: adapter_config.json is no usable adapter_config.json"),
        ("[]", "adapter.peftConfig: adapter_config.json is no usable adapter_config.json"),
        ('{"peft_type": "IA3"}', "adapter.peftConfig: peft_type must be LORA, found IA3"),
        ('{"rank": 3}', "unexpected keyword argument 'rank'"),
        ('{"target_modules": ["c_attn"]}', "the model has no module named c_attn"),
    ],
)
def test_a_peft_file_that_cannot_be_used(make_spec: MakeSpec, small: PreTrainedModel, tmp_path: Path, content: str, said: str) -> None:
    """The field, the file and the reason are named."""
    file = tmp_path / "adapter_config.json"
    file.write_text(content)
    with pytest.raises(TrainerError) as raised:
        lora_config(make_spec().adapter, small, file)
    assert said in raised.value.message


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("hf://org/name", BaseName("org/name", None)),
        ("hf://org/name@abc123", BaseName("org/name", "abc123")),
        ("s3://bucket/model", BaseName("s3://bucket/model", None)),
    ],
)
def test_an_adapter_names_its_base_as_others_know_it(uri: str, expected: BaseName) -> None:
    """Never by a path of the pod."""
    assert public_name(uri) == expected

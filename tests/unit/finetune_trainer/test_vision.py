"""Which models see, what is trained of them, and what is refused by name."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.run_config import JobIdentity, RunConfig, StoreConfig, Topology
from finetune_api.contract.store import FinalManifest, Pinned
from finetune_api.resolve import resolve
from finetune_trainer.errors import TrainerError
from finetune_trainer.estimate.decision import decide
from finetune_trainer.estimate.shape import AdapterShape, ModelShape, adapter_parameters
from finetune_trainer.outputs.card import has_processor, model_card
from finetune_trainer.vision import has_vision, is_vision, model_type
from tests.support.manifests import spec_of

LLAMA = {"model_type": "llama"}
QWEN = {"model_type": "qwen2_5_vl", "vision_config": {"depth": 32}}
OTHER = {"model_type": "seeing_llama", "vision_config": {}}


@pytest.mark.parametrize(
    ("config", "leaves", "expected"),
    [
        (LLAMA, {}, "LLM"),
        (LLAMA, {"model.type": "LLM", "method": "dpo"}, "LLM"),
        (QWEN, {}, "VLM"),
        (QWEN, {"model.type": "LLM"}, "LLM"),
        (QWEN, {"model.type": "VLM", "dataset.format": "vlm-zip"}, "VLM"),
        (LLAMA, {"model.type": "VLM"}, "model.type: VLM, but model.uri is a llama model without a vision part"),
        (LLAMA, {"dataset.format": "vlm-zip"}, "vlm-zip is for vision-language models"),
        (QWEN, {"method": "dpo"}, "method: dpo trains language models, and model.uri is a vision-language model (qwen2_5_vl)"),
        (QWEN, {"method": "pretrain"}, "method: pretrain trains language models"),
        (OTHER, {}, "vision-language models of type seeing_llama are not known here; qwen2_vl, qwen2_5_vl are"),
        (QWEN, {"dataset.packing": True}, "write packing: false"),
    ],
)
def test_type_of_a_model(config: dict[str, Any], leaves: dict[str, Any], expected: str) -> None:
    """B-11, C-07."""
    spec = resolve(spec_of(leaves)).spec
    if expected in ("LLM", "VLM"):
        assert model_type(spec, config) == expected
        return
    with pytest.raises(TrainerError) as caught:
        model_type(spec, config)
    assert expected in caught.value.message
    assert caught.value.failure_class == "ConfigurationError"


def test_names_of_vision_parts() -> None:
    """As files and as loaded models have them."""
    assert has_vision(QWEN)
    assert not has_vision(LLAMA)
    seen = (
        "visual.blocks.0.attn.qkv",
        "model.visual.merger.mlp.0.weight",
        "model.visual",
        "vision_tower.x",
        "multi_modal_projector.linear_1",
    )
    assert all(map(is_vision, seen))
    assert not any(map(is_vision, ("model.layers.0.self_attn.q_proj", "lm_head", "model.language_model.layers.0", "supervisual.x")))


@pytest.mark.parametrize(
    ("kind", "files", "shown"),
    [
        (
            "lora",
            ["processor_config.json"],
            ('PeftModel.from_pretrained(base, "PATH")', "AutoModelForImageTextToText", "image-text-to-text"),
        ),
        ("full", ["processor_config.json"], ('model = AutoModelForImageTextToText.from_pretrained("PATH"', "AutoProcessor")),
        ("lora", ["tokenizer.json"], ("AutoPeftModelForCausalLM", "AutoTokenizer", "text-generation")),
        ("full", ["tokenizer.json"], ('model = AutoModelForCausalLM.from_pretrained("PATH"', "AutoTokenizer")),
    ],
)
def test_cards_say_how_to_load(kind: Literal["lora", "full"], files: list[str], shown: tuple[str, ...]) -> None:
    """W-09: with the classes that know the result."""
    config = RunConfig(
        contract_version=CONTRACT_VERSION,
        job=JobIdentity(name="job", namespace="default", uid="uid"),
        run=1,
        spec=resolve(spec_of({})).spec,
        topology=Topology(replicas=1, processes_per_replica=1, device="cpu", master_addr="localhost", master_port=1),
        store=StoreConfig(uri="file:///store"),
    )
    final = FinalManifest(contract_version=CONTRACT_VERSION, kind=kind, step=1, attempt=1, source="last", files=[])
    card = model_card(config, final, Pinned(contract_version=CONTRACT_VERSION), sees=has_processor(files)).decode()
    assert all(text in card for text in shown)


SHAPE = ModelShape(
    tensors={
        "model.embed_tokens": (100, 8),
        "model.layers.0.self_attn.q_proj": (8, 8),
        "model.layers.0.mlp.up_proj": (16, 8),
        "visual.patch_embed.proj": (4, 3, 2, 2, 2),
        "visual.blocks.0.attn.qkv": (12, 4),
        "visual.blocks.0.mlp.up_proj": (6, 4),
        "lm_head": (100, 8),
    },
    hidden=8,
    layers=1,
    key_values=8,
    feed_forward=16,
    vocabulary=100,
    context=64,
)


def test_what_is_counted_as_trainable() -> None:
    """OP-17, AC-75: an adapter is on the named modules, and on the whole vision part where that is trained."""
    named, everything = AdapterShape(2, ["up_proj"]), AdapterShape(2, "all-linear")
    assert adapter_parameters(SHAPE, named, sees=False) == 2 * 24
    assert adapter_parameters(SHAPE, named) == 2 * (24 + 16 + 10)
    assert adapter_parameters(SHAPE, everything, sees=False) == 2 * (24 + 16)
    assert adapter_parameters(SHAPE, everything) == 2 * (24 + 16 + 16 + 10)
    assert adapter_parameters(SHAPE, AdapterShape(2, ["q_proj"], extends=False)) == 2 * 16
    vision = 4 * 24 + 48 + 24
    for kind, trainable in (("LLM", SHAPE.parameters - vision), ("VLM", SHAPE.parameters)):
        spec = resolve(spec_of({"model.type": kind, "adapter.type": "full", "resources.device": "cpu"})).spec
        assert decide(spec, SHAPE, named, ranks=1, gpu_bytes=None).trainable == trainable
    assert SHAPE.kept_parameters == 2 * 800 + vision

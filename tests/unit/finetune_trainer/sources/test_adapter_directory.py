"""R-12: which directories are adapters that training can go on from."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.estimate.shape import ModelShape
from finetune_trainer.sources.adapter_directory import ADAPTER_CONFIG, ADAPTER_WEIGHTS, check_adapter, check_remote_adapter, fetch_adapter
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.model_directory import local_files
from finetune_trainer.store.credentials import SecretFiles
from tests.support.hub import HubServer

SOURCE = Source("pvc://adapters/first", "adapter.attach.uri", SecretFiles(Path("absent"), "none"))
MODULE = "model.layers.0.self_attn.q_proj"
MODEL = ModelShape(tensors={MODULE: (64, 32)}, hidden=32, layers=1, key_values=32, feed_forward=64, vocabulary=16, context=128)


def weights(rank: int = 4, inputs: int = 32, outputs: int = 64) -> bytes:
    """Header and zeros of an adapter on one module."""
    shapes = {"lora_A": [rank, inputs], "lora_B": [outputs, rank]}
    header, at = {}, 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * shape[1]
        header[f"base_model.model.{MODULE}.{name}.weight"] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(at)


def adapter_files(**config: object) -> dict[str, bytes]:
    document = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 4, "target_modules": ["q_proj"], **config}
    return {ADAPTER_CONFIG: json.dumps(document).encode(), ADAPTER_WEIGHTS: weights(), "optimizer.pt": b"state"}


def write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def without(name: str) -> dict[str, bytes]:
    return {key: content for key, content in adapter_files().items() if key != name}


@pytest.mark.parametrize(
    ("files", "method", "said"),
    [
        (without(ADAPTER_CONFIG), "sft", r"adapter_config\.json is missing"),
        (without(ADAPTER_WEIGHTS), "sft", r"adapter_model\.safetensors is missing.*adapter_config\.json, optimizer\.pt"),
        ({**adapter_files(), ADAPTER_WEIGHTS: weights()[:-1]}, "sft", "the upload is incomplete"),
        ({**adapter_files(), ADAPTER_CONFIG: b"{"}, "sft", "is no JSON"),
        (adapter_files(peft_type="IA3"), "sft", "peft_type is IA3"),
        (adapter_files(), "reward", "made for task CAUSAL_LM; method reward trains SEQ_CLS"),
        (adapter_files(task_type="SEQ_CLS"), "dpo", "made for task SEQ_CLS"),
    ],
)
def test_what_is_missing_or_other_is_named(tmp_path: Path, files: dict[str, bytes], method: str, said: str) -> None:
    with pytest.raises(TrainerError, match=said) as caught:
        check_adapter(SOURCE, local_files(write(tmp_path / "adapter", files)), method)
    assert "adapter.attach.uri pvc://adapters/first" in caught.value.message
    assert caught.value.failure_class == FailureClass.CONFIGURATION


def test_preflight_compares_it_with_the_model(context: SourceContext) -> None:
    """Before a GPU is asked for, from headers alone."""
    write(context.pvc_dir / "adapters/first", adapter_files())
    check_remote_adapter(SOURCE, context, "sft", MODEL)
    write(context.pvc_dir / "adapters/wide", {**adapter_files(), ADAPTER_WEIGHTS: weights(inputs=48)})
    with pytest.raises(TrainerError, match=f"made for another model: of {MODULE} it has a side of 48, in model.uri that is 64 x 32"):
        check_remote_adapter(SOURCE._replace(uri="pvc://adapters/wide"), context, "sft", MODEL)


def test_pinned_to_what_the_first_attempt_found(hub: HubServer, context: SourceContext) -> None:
    """A branch that moves on changes nothing; of all files only two are fetched. Elsewhere the contents make the revision."""
    commit = hub.add("models", "acme/adapter", adapter_files())
    source = SOURCE._replace(uri="hf://acme/adapter")
    first = fetch_adapter(source, context, "sft")
    assert first.revision == commit
    hub.repositories["models", "acme/adapter"].commit(adapter_files(r=8))
    assert fetch_adapter(source, context, "sft", pinned=commit).directory == first.directory
    assert not any(path.endswith("optimizer.pt") for path in hub.downloads())
    directory = write(context.pvc_dir / "adapters/first", adapter_files())
    before = fetch_adapter(SOURCE, context, "sft").revision
    (directory / "optimizer.pt").write_bytes(b"other")
    assert fetch_adapter(SOURCE, context, "sft").revision == before
    (directory / ADAPTER_WEIGHTS).write_bytes(weights(rank=8))
    assert fetch_adapter(SOURCE, context, "sft").revision != before

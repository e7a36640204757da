"""C-10..C-12: which directories can be trained from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.strategies import Strategy
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources.context import Source
from finetune_trainer.sources.model_directory import INDEX, LEGACY_CONDITION, check_model, check_tokenizer, is_needed, local_files
from finetune_trainer.sources.plain_checkpoint import REQUIRED, PlainJob, check_plain_checkpoint
from finetune_trainer.store.credentials import SecretFiles
from tests.support.models import model_files, safetensors_bytes

SOURCE = Source("pvc://models/tiny", "model.uri", SecretFiles(Path("absent"), "none"))
RESUME = SOURCE._replace(uri="s3://b/checkpoint-500", role="checkpoint.resumeFrom")


def write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def test_a_complete_directory_passes(tmp_path: Path) -> None:
    assert check_model(SOURCE, local_files(write(tmp_path / "m", model_files()))) == {}


def without(*names: str) -> dict[str, bytes]:
    return {name: content for name, content in model_files().items() if name not in names}


INDEXED = json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}).encode()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (without("config.json"), r"config\.json is missing"),
        (without("model.safetensors"), "no weights"),
        ({"model.gguf": b"GGUF"}, "GGUF file"),
        ({**model_files(), "config.json": b"{"}, r"config\.json is no JSON"),
        ({**model_files(), "config.json": b"{}"}, "names no model_type"),
        ({**model_files(), "model.safetensors": b"123"}, r"model\.safetensors is empty or cut short"),
        ({**model_files(), "model.safetensors": b"\xff" * 100}, "no safetensors file"),
        ({**model_files(), "model.safetensors": safetensors_bytes()[:-1]}, "the upload is incomplete"),
        ({**without("model.safetensors"), "model-00001-of-00002.safetensors": safetensors_bytes(), INDEX: INDEXED}, "model-00002-of-00002"),
        ({**model_files(), INDEX: b"[]"}, "cannot be read"),
    ],
)
def test_what_is_missing_or_broken_is_named(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    """AC-06: refused, the missing file named."""
    with pytest.raises(TrainerError, match=message) as caught:
        check_model(SOURCE, local_files(write(tmp_path / "m", files)))
    assert caught.value.failure_class == FailureClass.MODEL
    assert "pvc://models/tiny" in caught.value.message


def test_only_bin_weights_is_a_warning(tmp_path: Path) -> None:
    """C-12, AC-05: accepted with a warning to use safetensors."""
    files = {**without("model.safetensors"), "pytorch_model.bin": b"pickle"}
    assert LEGACY_CONDITION in check_model(SOURCE, local_files(write(tmp_path / "m", files)))


def test_tokenizer_is_needed_unless_another_is_named() -> None:
    check_tokenizer(SOURCE, {"tokenizer.json": 2})
    with pytest.raises(TrainerError, match=r"model\.tokenizer\.uri"):
        check_tokenizer(SOURCE, {"config.json": 2})


def test_files_of_other_frameworks_are_not_fetched() -> None:
    names = frozenset({"model.safetensors", "pytorch_model.bin", "tf_model.h5", "config.json", "onnx/model.onnx"})
    assert {name for name in names if is_needed(name, names)} == {"model.safetensors", "config.json"}
    legacy = frozenset({"pytorch_model.bin", "config.json"})
    assert {name for name in legacy if is_needed(name, legacy)} == legacy


def plain(directory: Path, kind: str) -> Path:
    names = [*REQUIRED[kind], "rng_state.pth", *(["model.safetensors"] if kind == "full" else [])]
    write(directory, dict.fromkeys(names, b"x"))
    (directory / "trainer_state.json").write_text('{"global_step": 500}')
    return directory


@pytest.mark.parametrize("missing", [*REQUIRED["lora"], "rng_state.pth"])
def test_incomplete_plain_checkpoint_names_the_file(tmp_path: Path, missing: str) -> None:
    """AC-08: checkpoint-500 without any of the six files: refused as incomplete, the missing file named."""
    directory = plain(tmp_path / "c", "lora")
    check_plain_checkpoint(RESUME, directory, job=PlainJob("lora", 1))
    (directory / missing).unlink()
    with pytest.raises(TrainerError, match=missing.replace(".", r"\.")) as caught:
        check_plain_checkpoint(RESUME, directory, job=PlainJob("lora", 1))
    assert caught.value.failure_class == FailureClass.CHECKPOINT_INCOMPLETE


def test_plain_checkpoint_of_another_kind(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match=r"is a lora checkpoint, adapter\.type is full"):
        check_plain_checkpoint(RESUME, plain(tmp_path / "a", "lora"), job=PlainJob("full", 1))
    with pytest.raises(TrainerError, match=r"is a full checkpoint, adapter\.type is lora"):
        check_plain_checkpoint(RESUME, plain(tmp_path / "b", "full"), job=PlainJob("lora", 1))
    check_plain_checkpoint(RESUME, tmp_path / "b", job=PlainJob("full", 1))
    (tmp_path / "b/latest").write_text("global_step5")
    with pytest.raises(TrainerError, match="DeepSpeed"):
        check_plain_checkpoint(RESUME, tmp_path / "b", job=PlainJob("full", 1))


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("none", None),
        ("ddp", None),
        (None, None),
        ("zero2", "distributed.strategy zero2 cannot read; set it to ddp"),
        ("fsdp", "fsdp cannot"),
    ],
)
def test_a_whole_optimizer_is_for_whole_copies(tmp_path: Path, strategy: Strategy | None, said: str | None) -> None:
    """R-10: what a strategy that splits the optimizer cannot read is said before a GPU is taken."""
    directory, job = plain(tmp_path / "c", "lora"), PlainJob("lora", 1, strategy)
    if said is None:
        check_plain_checkpoint(RESUME, directory, job=job)
        return
    with pytest.raises(TrainerError, match=said):
        check_plain_checkpoint(RESUME, directory, job=job)


@pytest.mark.parametrize(
    ("file", "name"), [("global_step5/mp_rank_00_model_states.pt", "a DeepSpeed"), ("optimizer_0/.metadata", "an FSDP")]
)
def test_an_optimizer_in_parts_needs_our_manifest(tmp_path: Path, file: str, name: str) -> None:
    """R-10: whatever the job's strategy."""
    directory = plain(tmp_path / "c", "full")
    (directory / file).parent.mkdir()
    (directory / file).write_bytes(b"x")
    for strategy in (None, "zero2", "fsdp", "ddp"):
        with pytest.raises(TrainerError, match=rf"is {name} checkpoint without manifest\.json; .* can be resumed"):
            check_plain_checkpoint(RESUME, directory, job=PlainJob("full", 1, strategy))


def test_sharded_full_checkpoint_needs_every_shard(tmp_path: Path) -> None:
    directory = plain(tmp_path / "c", "full")
    (directory / "model.safetensors").unlink()
    write(directory, {INDEX: INDEXED, "model-00001-of-00002.safetensors": b"x"})
    with pytest.raises(TrainerError, match="model-00002-of-00002"):
        check_plain_checkpoint(RESUME, directory, job=PlainJob("full", 1))

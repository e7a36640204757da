"""hf:// sources against a local server that speaks the hub's protocol."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources import hub as hub_source
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.remote_model import check_remote_model
from finetune_trainer.sources.resolve import Split, fetch_data, fetch_model, fetch_tokenizer
from finetune_trainer.store.credentials import SecretFiles
from tests.support.hub import HubServer
from tests.support.models import model_files, safetensors_bytes

NO_SECRET = SecretFiles(Path("absent"), "none")


def model_source(uri: str) -> Source:
    return Source(uri, "model.uri", NO_SECRET)


def data_source(uri: str) -> Source:
    return Source(uri, "dataset.uri", NO_SECRET)


def set_token(context: SourceContext, token: str) -> None:
    (context.hub_secret.directory / "HF_TOKEN").write_text(token)


def test_model_is_fetched_once_and_known_by_its_commit(hub: HubServer, context: SourceContext) -> None:
    commit = hub.add("models", "org/tiny", model_files())
    model = fetch_model(model_source("hf://org/tiny"), context, needs_tokenizer=True)
    assert model.revision == commit
    assert (model.directory / "model.safetensors").read_bytes() == safetensors_bytes()
    before = len(hub.downloads())
    assert fetch_model(model_source("hf://org/tiny"), context, needs_tokenizer=True).directory == model.directory
    assert len(hub.downloads()) == before


def test_a_pinned_commit_is_used_when_the_branch_moved(hub: HubServer, context: SourceContext) -> None:
    """Design §5: later attempts use the model commit the first one froze."""
    first = hub.add("models", "org/tiny", model_files())
    hub.repositories["models", "org/tiny"].commit({**model_files(), "generation_config.json": b"{}"})
    assert fetch_model(model_source("hf://org/tiny@main"), context, pinned=first, needs_tokenizer=True).revision == first


def test_only_one_format_of_weights_is_fetched(hub: HubServer, context: SourceContext) -> None:
    extra = {"pytorch_model.bin": b"pickle", "model.gguf": b"GGUF", "original/consolidated.00.pth": b"x", "README.md": b"# hi"}
    hub.add("models", "org/tiny", {**model_files(), **extra})
    directory = fetch_model(model_source("hf://org/tiny"), context, needs_tokenizer=True).directory
    assert {path.name for path in directory.rglob("*") if path.is_file()} == set(model_files())


def test_gated_repository_without_a_token(hub: HubServer, context: SourceContext) -> None:
    hub.add("models", "org/gated", model_files(), access="gated")
    with pytest.raises(
        TrainerError, match=r"hf://org/gated: the repository is gated.*no token is set.*secrets\.huggingface\.secretRef"
    ) as caught:
        fetch_model(model_source("hf://org/gated"), context, needs_tokenizer=True)
    assert caught.value.failure_class == FailureClass.HUGGING_FACE_AUTH


def test_gated_repository_with_a_token(hub: HubServer, context: SourceContext) -> None:
    hub.add("models", "org/gated", model_files(), access="gated")
    hub.tokens.add("good")
    set_token(context, "bad")
    with pytest.raises(TrainerError, match="the key HF_TOKEN of Secret hub-token is used"):
        fetch_model(model_source("hf://org/gated"), context, needs_tokenizer=True)
    set_token(context, "good\n")
    assert fetch_model(model_source("hf://org/gated"), context, needs_tokenizer=True).directory.is_dir()


def test_private_and_missing_repositories_look_alike(hub: HubServer, context: SourceContext) -> None:
    hub.add("models", "org/private", model_files(), access="private")
    for name in ("org/private", "org/absent"):
        with pytest.raises(TrainerError, match="no such repository, or it is private") as caught:
            fetch_model(model_source(f"hf://{name}"), context, needs_tokenizer=True)
        assert caught.value.failure_class == FailureClass.HUGGING_FACE_AUTH


def test_missing_revision(hub: HubServer, context: SourceContext) -> None:
    hub.add("models", "org/tiny", model_files())
    with pytest.raises(TrainerError, match="no such revision") as caught:
        fetch_model(model_source("hf://org/tiny@v9"), context, needs_tokenizer=True)
    assert caught.value.failure_class == FailureClass.MODEL


def test_an_outage_is_waited_for(hub: HubServer, context: SourceContext) -> None:
    hub.add("models", "org/tiny", model_files())
    hub.failures = 2
    assert fetch_model(model_source("hf://org/tiny"), context, needs_tokenizer=True).directory.is_dir()


def test_a_hub_that_stays_away_is_no_fault_of_the_model(hub: HubServer, context: SourceContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class says that another try may help; field and URI are named."""
    monkeypatch.setattr(hub_source, "OUTAGE_PATIENCE_SECONDS", 0.1)
    hub.failures = 1000
    with pytest.raises(TrainerError, match=r"model\.uri hf://org/tiny: the hub did not answer") as caught:
        fetch_model(model_source("hf://org/tiny"), context, needs_tokenizer=True)
    assert caught.value.failure_class == FailureClass.HUB_UNAVAILABLE


def test_offline_uses_the_cache_and_asks_nobody(hub: HubServer, context: SourceContext) -> None:
    hub.add("models", "org/tiny", model_files())
    offline = dataclasses.replace(context, offline=True)
    with pytest.raises(TrainerError, match="offline is set and the cache does not hold it"):
        fetch_model(model_source("hf://org/tiny"), offline, needs_tokenizer=True)
    fetch_model(model_source("hf://org/tiny"), context, needs_tokenizer=True)
    hub.requests.clear()
    assert fetch_model(model_source("hf://org/tiny"), offline, needs_tokenizer=True).directory.is_dir()
    assert hub.requests == []


@pytest.mark.parametrize("uri", ["hf://a/b/c", "hf://", "hf://bad name"])
def test_malformed_names(context: SourceContext, hub: HubServer, uri: str) -> None:
    with pytest.raises(TrainerError, match=r"must look like|no valid repository name"):
        fetch_model(model_source(uri), context, needs_tokenizer=True)


def test_preflight_reads_headers_only(hub: HubServer, context: SourceContext) -> None:
    """Preflight: model config and weights header without downloading the weights."""
    hub.add("models", "org/tiny", model_files())
    assert check_remote_model(model_source("hf://org/tiny"), context, needs_tokenizer=True) == {}
    assert not list((context.cache_dir / "hub").rglob("model.safetensors"))
    hub.add("models", "org/cut", {**model_files(), "model.safetensors": safetensors_bytes()[:-4]})
    with pytest.raises(TrainerError, match="the upload is incomplete"):
        check_remote_model(model_source("hf://org/cut"), context, needs_tokenizer=True)


def test_preflight_of_a_gated_model_names_the_licence(hub: HubServer, context: SourceContext) -> None:
    hub.add("models", "org/gated", model_files(), access="gated")
    with pytest.raises(TrainerError, match="accept its licence") as caught:
        check_remote_model(model_source("hf://org/gated"), context, needs_tokenizer=True)
    assert caught.value.failure_class == FailureClass.HUGGING_FACE_AUTH


def test_tokenizer_of_another_repository(hub: HubServer, context: SourceContext) -> None:
    """C-14: weights are not fetched for a tokenizer."""
    hub.add("models", "org/tiny", model_files())
    source = Source("hf://org/tiny", "model.tokenizer.uri", NO_SECRET)
    tokenizer = fetch_tokenizer(source, context)
    assert not (tokenizer.directory / "model.safetensors").exists()
    assert (tokenizer.directory / "tokenizer.json").exists()


def test_dataset_split_by_file_name(hub: HubServer, context: SourceContext) -> None:
    files = {"data/train-00001.jsonl": b"b\n", "data/train-00000.jsonl": b"a\n", "data/test-00000.jsonl": b"c\n"}
    hub.add("datasets", "org/rows", files)
    train = fetch_data(data_source("hf://org/rows"), context, Split("train", None))
    assert [path.read_bytes() for path in train.files] == [b"a\n", b"b\n"]
    test = fetch_data(data_source("hf://org/rows"), context, Split("test", None))
    assert [path.read_bytes() for path in test.files] == [b"c\n"]
    assert train.digest != test.digest
    with pytest.raises(TrainerError, match="has no split validation"):
        fetch_data(data_source("hf://org/rows"), context, Split("validation", None))


def test_dataset_card_decides(hub: HubServer, context: SourceContext) -> None:
    card = b"""---
configs:
- config_name: small
  data_files:
  - split: train
    path: s/*.jsonl
- config_name: large
  default: true
  data_files:
  - split: train
    path: [l/a.jsonl, l/b.jsonl]
---
# Rows
"""
    hub.add("datasets", "org/rows", {"README.md": card, "s/x.jsonl": b"small\n", "l/a.jsonl": b"a\n", "l/b.jsonl": b"b\n"})
    assert [path.name for path in fetch_data(data_source("hf://org/rows"), context, Split("train", None)).files] == ["a.jsonl", "b.jsonl"]
    assert [path.name for path in fetch_data(data_source("hf://org/rows"), context, Split("train", "small")).files] == ["x.jsonl"]
    with pytest.raises(TrainerError, match=r"dataset\.config huge does not exist; it has large, small"):
        fetch_data(data_source("hf://org/rows"), context, Split("train", "huge"))

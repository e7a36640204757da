"""Code beside a model: named, complete and the model's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.tokenizer import refuse_own_code
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.model_code import CONDITION, check_code, code_references
from finetune_trainer.sources.model_directory import local_files
from finetune_trainer.sources.remote_model import check_remote_model
from finetune_trainer.sources.resolve import fetch_model
from finetune_trainer.store.credentials import SecretFiles
from tests.support.hub import HubServer
from tests.support.models import model_files

SOURCE = Source("pvc://models/own", "model.uri", SecretFiles(Path("absent"), "none"), runs_code=True)
AUTO_MAP = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
CODE = {"configuration_own.py": b"", "modeling_own.py": b""}


def own_files(auto_map: object = AUTO_MAP, **others: bytes) -> dict[str, bytes]:
    config = {"model_type": "own", "architectures": ["OwnForCausalLM"], "auto_map": auto_map}
    return {**model_files(), "config.json": json.dumps(config).encode(), **CODE, **others}


def write(directory: Path, files: dict[str, bytes]) -> Path:
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
    return directory


def test_references_of_every_shape() -> None:
    """A tokenizer names a list of a slow and a fast class."""
    assert code_references({"auto_map": {"AutoTokenizer": ["tokenization_own.Own", None]}}) == ["tokenization_own.Own"]
    assert code_references({"auto_map": AUTO_MAP}) == list(AUTO_MAP.values())
    assert code_references({}) == code_references([]) == []


def test_what_will_run_is_said(tmp_path: Path) -> None:
    warnings = check_code(SOURCE, local_files(write(tmp_path / "m", own_files())))
    assert warnings == {CONDITION: "pvc://models/own: its own code runs in the pods: configuration_own.py, modeling_own.py."}
    assert check_code(SOURCE, local_files(write(tmp_path / "plain", model_files()))) == {}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (own_files({"AutoConfig": "acme/other--configuration_own.OwnConfig"}), "code of another repository"),
        ({name: content for name, content in own_files().items() if name != "modeling_own.py"}, "modeling_own.py is missing, config.json"),
        (own_files(**{"tokenizer_config.json": b'{"auto_map": {"AutoTokenizer": ["words.Own", null]}}'}), "words.py is missing"),
    ],
)
def test_code_that_cannot_be_vouched_for(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    with pytest.raises(TrainerError, match=said) as caught:
        check_code(SOURCE, local_files(write(tmp_path / "m", files)))
    assert caught.value.failure_class == FailureClass.MODEL


def test_a_model_that_needs_its_code_is_refused_without_trust(tmp_path: Path) -> None:
    """One the library knows as well is loaded by the library."""
    with pytest.raises(TrainerError, match=r"set model\.trustRemoteCode to true") as caught:
        refuse_own_code(write(tmp_path / "m", own_files()))
    assert caught.value.failure_class == FailureClass.CONFIGURATION
    known = json.dumps({"model_type": "llama", "auto_map": AUTO_MAP}).encode()
    refuse_own_code(write(tmp_path / "known", {**own_files(), "config.json": known}))


def test_code_comes_with_the_weights(hub: HubServer, context: SourceContext) -> None:
    """From the hub at its commit; preflight looks at the same names without the weights."""
    commit = hub.add("models", "acme/own", own_files())
    source = SOURCE._replace(uri=f"hf://acme/own@{commit}")
    assert CONDITION in check_remote_model(source, context, needs_tokenizer=True)
    fetched = fetch_model(source, context, needs_tokenizer=True)
    assert CONDITION in fetched.warnings
    assert fetched.revision == commit
    assert {path.name for path in fetched.directory.iterdir()} >= set(CODE)

"""The export verb: final weights in a store become merged model, GGUF, answers and a repository; what is complete is not made again."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from transformers import LlamaConfig

from finetune_api.contract import CONTRACT_VERSION
from finetune_api.contract.failures import EXIT_STORE_UNREACHABLE, EXIT_USER_ERROR, FailureClass
from finetune_api.contract.run_config import StoreConfig
from finetune_api.contract.store import ExportManifest, FinalManifest, Pinned, SamplePrompt
from finetune_trainer.sources.digest import directory_digest
from finetune_trainer.store.local import LocalStore
from finetune_trainer.store.transfer import upload_files
from finetune_trainer.supervisor.environment import PodEnvironment
from finetune_trainer.verbs import push as push_module
from finetune_trainer.verbs.export import run_export
from tests.support.hub import HubServer, running_hub
from tests.support.tiny_outputs import SIZES, byte_level, make_case
from tests.unit.finetune_trainer.verbs.conftest import VerbPod

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # peft uses names that transformers has renamed
    pytest.mark.filterwarnings("ignore:Use 'content:DeprecationWarning"),  # the hub's client sends files by an argument that was renamed
]
OUTPUT: Mapping[str, Any] = {
    "merge": True,
    "export": {"gguf": {"enabled": True, "quant": ["Q8_0"]}, "samples": 1},
    "push": {"enabled": True, "repoId": "org/helper", "secretRef": {"name": "hub-write"}},
    "modelCard": {"title": "Helper", "license": "apache-2.0", "tags": ["kubernetes"]},
}


@dataclasses.dataclass
class Trained:
    """A pod, its store with final weights, and a hub."""

    pod: VerbPod
    store: LocalStore
    hub: HubServer

    def run(self, output: Mapping[str, Any], *, program: tuple[str, ...] | None = None) -> int:
        """Export with these outputs; ``program`` stands for the trainer's own where nothing may be made."""
        environment = self.pod.environment({"output": dict(output)})
        return run_export(dataclasses.replace(environment, program=program or PodEnvironment.program))

    def token(self, token: str) -> None:
        """Write the Secret of the push."""
        secret = self.pod.directory / "secrets/push"
        shutil.rmtree(secret, ignore_errors=True)
        secret.mkdir(parents=True)
        (secret / "HF_TOKEN").write_text(token)
        (secret / "HF_ENDPOINT").write_text(self.hub.endpoint)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """A finished training of a tiny Llama."""
    directory = tmp_path_factory.mktemp("export")
    tokenizer = byte_level("gpt-2")
    config = LlamaConfig(**SIZES, vocab_size=448)
    case = make_case(directory, "case", config, torch.float32, tokenizer)
    pod = VerbPod(directory, StoreConfig(uri=f"file://{directory}/store/team/job"))
    shutil.rmtree(directory / "pvc/models/tiny")
    shutil.copytree(case.base, directory / "pvc/models/tiny")
    store = LocalStore(directory / "store/team/job", patience=5)
    names = sorted(path.name for path in case.final.iterdir())
    final = FinalManifest(
        contract_version=CONTRACT_VERSION, kind="lora", step=7, attempt=1, source="last", metrics={"eval_loss": 1.5},
        files=upload_files(store, case.final, "final", names),
    )  # fmt: skip
    store.put("final/manifest.json", final.to_json().encode())
    revision = directory_digest(directory / "pvc/models/tiny")
    store.put("pinned.json", Pinned(contract_version=CONTRACT_VERSION, model_revision=revision, dataset_digest="d" * 64).to_json().encode())
    prompts = [SamplePrompt(split=split, prompt="how many", expected="three") for split in ("train", "train", "eval")]
    store.put("prompts.json", json.dumps([prompt.model_dump(by_alias=True) for prompt in prompts]).encode())
    with running_hub() as hub:
        hub.tokens.add("may-write")
        hub.readers.add("may-read")
        yield Trained(pod, store, hub)


def test_everything_is_made_kept_checked_and_pushed(trained: Trained) -> None:
    """W-01 W-03 W-04 V-03 AC-26: one try from final weights to a repository; merged weights are as large as the base's."""
    trained.token("may-write")
    assert trained.run(OUTPUT) == 0, trained.pod.message.message
    manifest = ExportManifest.model_validate_json(trained.store.get("final/export.json"))
    assert [(each.type, each.name) for each in manifest.exported] == [("merged", ""), ("gguf", "Q8_0")]
    assert all(each.max_delta is not None and each.max_delta < 1 for each in manifest.exported)
    merged = sum(file.size for file in manifest.exported[0].files if file.path.endswith(".safetensors"))
    assert merged == pytest.approx((trained.pod.directory / "pvc/models/tiny/model.safetensors").stat().st_size, rel=0.1)
    outputs = (trained.pod.message.result or {})["outputs"]
    assert isinstance(outputs, list)
    assert [(each["type"], each["name"]) for each in outputs] == [("merged", ""), ("gguf", "Q8_0"), ("hub", "org/helper")]
    answers = json.loads(trained.store.get("final/samples.json"))
    assert [(each["split"], each["expected"]) for each in answers] == [("train", "three"), ("eval", "three")]
    files = trained.hub.files("org/helper")
    assert {"model.safetensors", "config.json", "tokenizer.json", "adapter/adapter_model.safetensors", "job-Q8_0.gguf", "README.md"} <= set(
        files
    )
    card = files["README.md"].decode()
    assert card.startswith("---\nbase_model:")
    assert all(part in card for part in ("# Helper", "license: apache-2.0", "- kubernetes", "eval_loss", "| Q8_0 |", "Weights of step 7"))
    assert trained.hub.repositories["models", "org/helper"].access == "private"


def test_what_is_complete_is_not_made_again(trained: Trained) -> None:
    """A push alone is tried again; the program that makes outputs is not started."""
    trained.token("may-write")
    assert trained.run(OUTPUT, program=("false",)) == 0, trained.pod.message.message
    shutil.rmtree(trained.pod.directory / "work")
    assert trained.run(OUTPUT, program=("false",)) == 0, trained.pod.message.message


def test_a_wider_wish_makes_only_the_rest_and_a_failure_says_which_step(trained: Trained) -> None:
    """What was complete stays in the manifest when making more fails."""
    more = {**OUTPUT, "export": {"gguf": {"enabled": True, "quant": ["Q8_0", "F16"]}}}
    assert trained.run(more, program=("false",)) != 0
    assert "make" in trained.pod.message.message
    manifest = ExportManifest.model_validate_json(trained.store.get("final/export.json"))
    assert [each.name for each in manifest.exported] == ["", "Q8_0"]


@pytest.mark.parametrize(("token", "named"), [("may-read", "403"), ("nobody", "401")])
def test_a_token_that_may_not_write_is_a_user_error(trained: Trained, token: str, named: str) -> None:
    """X-04: class, Secret and repository are named; no retry helps."""
    trained.token(token)
    assert trained.run({**OUTPUT, "push": {**OUTPUT["push"], "repoId": "org/other"}}, program=("false",)) == EXIT_USER_ERROR
    message = trained.pod.message
    assert message.failure_class is FailureClass.HUGGING_FACE_AUTH
    assert "hub-write" in message.message
    assert named in message.message


def test_a_missing_secret_is_named(trained: Trained) -> None:
    """AC-68: push without a token."""
    shutil.rmtree(trained.pod.directory / "secrets/push", ignore_errors=True)
    assert trained.run(OUTPUT, program=("false",)) == EXIT_USER_ERROR
    assert "Secret hub-write does not exist or lacks the key HF_TOKEN" in trained.pod.message.message


def test_a_hub_that_is_away_ends_the_try_for_another_one(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages are waited for, then left to the operator's back-off."""
    trained.token("may-write")
    monkeypatch.setattr(push_module, "OUTAGE_PATIENCE_SECONDS", 0.2)
    trained.hub.failures = 10_000
    try:
        assert trained.run(OUTPUT, program=("false",)) == EXIT_STORE_UNREACHABLE
    finally:
        trained.hub.failures = 0
    assert trained.pod.message.failure_class is FailureClass.HUB_UNAVAILABLE


def test_a_changed_base_model_is_refused(trained: Trained) -> None:
    """An adapter means nothing on other weights."""
    config = trained.pod.directory / "pvc/models/tiny/generation_config.json"
    before = config.read_bytes()
    config.write_bytes(before + b"\n")
    try:
        assert trained.run({"merge": True, "export": {"gguf": {"enabled": True, "quant": ["F16"]}}}) == EXIT_USER_ERROR
    finally:
        config.write_bytes(before)
    assert "it has changed since the training" in trained.pod.message.message


def test_without_final_weights_there_is_nothing_to_export(verb_pod: VerbPod) -> None:
    assert run_export(verb_pod.environment({"output": {"merge": True}})) == EXIT_USER_ERROR
    assert "holds no final weights" in verb_pod.message.message

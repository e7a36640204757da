"""pull: a model of a hub into a bucket, from a server that speaks the hub's protocol to a real MinIO."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.pull import PULL_MANIFEST, PULL_STATE, PullConfig, PullRecord, PullResult
from finetune_api.contract.run_config import StoreConfig
from finetune_api.contract.termination import TerminationMessage
from finetune_trainer.sources import hub as hub_source
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.remote_model import check_remote_model
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.supervisor.environment import pod_environment
from finetune_trainer.verbs.pull import run_pull
from tests.support.hub import HubServer, running_hub
from tests.support.minio import MinioServer
from tests.support.models import model_files, safetensors_bytes

FILES = {
    **model_files(),
    "model.safetensors": safetensors_bytes(300),
    "LICENSE": b"do what you like",
    "README.md": b"# tiny",
}
OTHERS = {"pytorch_model.bin": b"pickle", "model.gguf": b"GGUF", "original/consolidated.00.pth": b"x"}


@pytest.fixture(scope="module")
def hub_server() -> Iterator[HubServer]:
    with running_hub() as server:
        yield server


@pytest.fixture
def hub(hub_server: HubServer) -> HubServer:
    """A hub with one model."""
    hub_server.clear()
    hub_server.add("models", "org/tiny", {**FILES, **OTHERS})
    return hub_server


@dataclass
class PullPod:
    """A pod of the verb: its directories, and the bucket it writes to."""

    directory: Path
    bucket: str
    minio: MinioServer

    def pull(self, uri: str = "hf://org/tiny", path: str = "models/tiny") -> TerminationMessage:
        """Run the verb in a pod of its own: nothing of an earlier one is on its disk."""
        pod = self.directory / f"pod-{len(list(self.directory.glob('pod-*')))}"
        config = PullConfig(
            contract_version=CONTRACT_VERSION,
            uri=uri,
            target=StoreConfig(uri=f"s3://{self.bucket}/{path}"),
            store_secret="finetune-storage",
            hub_secret="hub-token" if (self.secrets / "huggingface/HF_TOKEN").exists() else None,
        )
        pod.mkdir()
        (pod / "config.json").write_text(config.to_json())
        names = {
            env.ENV_RUN_CONFIG: "config.json",
            env.ENV_WORK_DIR: "work",
            env.ENV_CACHE_DIR: "cache",
            env.ENV_TERMINATION_MESSAGE: "termination",
        }
        variables = {name: str(pod / file) for name, file in names.items()} | {env.ENV_SECRETS_DIR: str(self.secrets)}
        code = run_pull(pod_environment(variables))
        message = TerminationMessage.model_validate_json((pod / "termination").read_text())
        assert message.exit_code == code
        assert not [path for path in (pod / "work/pull").rglob("*") if path.name in FILES], "nothing stays on the pod's disk"
        return message

    def pulled(self, uri: str = "hf://org/tiny") -> PullResult:
        message = self.pull(uri)
        assert message.exit_code == 0, message.message
        return PullResult.model_validate(message.result)

    def refused(self, uri: str = "hf://org/tiny", path: str = "models/tiny") -> tuple[FailureClass | None, str]:
        message = self.pull(uri, path)
        assert message.exit_code != 0
        return message.failure_class, message.message

    @property
    def secrets(self) -> Path:
        return self.directory / "secrets"

    def stored(self) -> dict[str, bytes]:
        """What lies in the bucket below the target."""
        client = self.minio.client()
        names = [str(found.object_name) for found in client.list_objects(self.bucket, prefix="models/tiny/", recursive=True)]
        return {name.removeprefix("models/tiny/"): client.get_object(self.bucket, name).read() for name in names}

    def remove(self, name: str) -> None:
        self.minio.client().remove_object(self.bucket, f"models/tiny/{name}")


@pytest.fixture
def pod(tmp_path: Path, hub: HubServer, minio: MinioServer, bucket: str) -> PullPod:
    (tmp_path / "secrets/huggingface").mkdir(parents=True)
    (tmp_path / "secrets/huggingface/HF_ENDPOINT").write_text(hub.endpoint)
    minio.write_secret(tmp_path / "secrets/store")
    return PullPod(tmp_path, bucket, minio)


def test_a_model_lies_in_the_bucket_as_jobs_want_it(pod: PullPod, hub: HubServer) -> None:
    """C-13, C-10: one format of weights, licence and card, a manifest of sizes and digests; a job's preflight takes the directory."""
    result = pod.pulled()
    stored = pod.stored()
    manifest = PullRecord.model_validate_json(stored.pop(PULL_MANIFEST))
    assert stored == FILES
    assert {file.path: file.size for file in manifest.files} == {name: len(content) for name, content in FILES.items()}
    assert (manifest.source, manifest.commit) == ("hf://org/tiny", hub.repositories["models", "org/tiny"].revisions["main"])
    assert result == PullResult(
        uri=f"s3://{pod.bucket}/models/tiny",
        commit=manifest.commit,
        files=len(FILES),
        size_bytes=sum(map(len, FILES.values())),
        kept=0,
        model_type="LLM",
    )
    store_secret = SecretFiles(pod.secrets / "store", "finetune-storage")
    context = SourceContext(pod.directory, pod.directory, pod.directory, store_secret, offline=False)
    assert check_remote_model(Source(result.uri, "model.uri", store_secret), context, needs_tokenizer=True) == {}


def test_what_is_there_is_kept(pod: PullPod, hub: HubServer) -> None:
    """C-13: nothing is fetched twice; what was removed or replaced meanwhile is fetched again."""
    pod.pulled()
    assert pod.pulled().kept == len(FILES)
    pod.remove("LICENSE")
    pod.minio.client().put_object(pod.bucket, "models/tiny/tokenizer.json", io.BytesIO(b"[]"), 2)
    hub.requests.clear()
    assert pod.pulled().kept == len(FILES) - 2
    looked_at = {"config.json", "tokenizer_config.json", "model.safetensors"}  # of weights the header alone
    assert {path.rpartition("/")[2] for path in hub.downloads()} - looked_at == {"LICENSE", "tokenizer.json"}
    assert {name: content for name, content in pod.stored().items() if name != PULL_MANIFEST} == FILES


def test_a_damaged_file_is_refused_and_the_next_try_goes_on(pod: PullPod, hub: HubServer) -> None:
    """C-13: bytes that are not what the hub says go nowhere; until all is there, there is no config.json, and so no model."""
    hub.damaged["model.safetensors"] = FILES["model.safetensors"][:-1] + b"x"
    kind, message = pod.refused()
    assert kind is FailureClass.MODEL
    assert f"model.safetensors has sha256 {hashlib.sha256(hub.damaged['model.safetensors']).hexdigest()}, the hub says" in message
    there = pod.stored()
    assert PULL_STATE in there
    assert not {"model.safetensors", "config.json", PULL_MANIFEST} & set(there)
    kept = len(PullRecord.model_validate_json(there[PULL_STATE]).files)
    hub.damaged = {"config.json": FILES["config.json"].replace(b"llama", b"gemma")}
    assert "config.json is the blob" in pod.refused()[1]
    hub.damaged.clear()
    result = pod.pulled()
    assert kept >= 1
    assert result.kept >= kept
    assert set(pod.stored()) == {*FILES, PULL_MANIFEST}


def test_an_outage_of_the_hub_is_waited_for(pod: PullPod, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """C-13: for five minutes; then the class says that another try may help."""
    hub.failures = 2
    assert pod.pulled().files == len(FILES)
    monkeypatch.setattr(hub_source, "OUTAGE_PATIENCE_SECONDS", 0.1)
    hub.failures = 1000
    assert pod.refused()[0] is FailureClass.HUB_UNAVAILABLE


def test_who_may_not_read_is_told_how_to(pod: PullPod, hub: HubServer) -> None:
    """C-13, X-04: gated and private models, without a token, with a wrong one, and with the right one."""
    hub.add("models", "org/tiny", FILES, access="gated")
    hub.tokens.add("good")
    kind, message = pod.refused()
    assert kind is FailureClass.HUGGING_FACE_AUTH
    assert "model hf://org/tiny" in message
    assert "gated" in message
    assert "no token is set; set --hub-secret to a Secret whose key HF_TOKEN may read it" in message
    token = pod.secrets / "huggingface/HF_TOKEN"
    token.write_text("bad")
    assert "the key HF_TOKEN of Secret hub-token is used" in pod.refused()[1]
    token.write_text("good")
    assert pod.pulled().files == len(FILES)


@pytest.mark.parametrize(
    ("uri", "kind", "said"),
    [
        ("hf://org/tiny@v9", FailureClass.MODEL, "model hf://org/tiny@v9: the repository has no such revision"),
        ("hf://org/absent", FailureClass.HUGGING_FACE_AUTH, "no such repository, or it is private"),
        ("hf://org/gguf", FailureClass.MODEL, "model.gguf is a GGUF file: made for inference, it cannot be trained"),
        ("hf://org/cut", FailureClass.MODEL, "the upload is incomplete"),
    ],
)
def test_what_is_no_model_is_refused_before_anything_is_fetched(
    pod: PullPod, hub: HubServer, uri: str, kind: FailureClass, said: str
) -> None:
    """C-13, C-10, C-11."""
    hub.add("models", "org/gguf", {"model.gguf": b"GGUF", "README.md": b""})
    hub.add("models", "org/cut", {**FILES, "model.safetensors": FILES["model.safetensors"][:-4]})
    found, message = pod.refused(uri)
    assert found is kind
    assert said in message
    assert pod.stored() == {}


def test_a_place_that_holds_something_else_is_left_alone(pod: PullPod, hub: HubServer) -> None:
    """C-13: files of somebody, another commit, another model: jobs may use them."""
    pod.minio.client().put_object(pod.bucket, "models/tiny/notes.txt", io.BytesIO(b"mine"), 4)
    assert "notes.txt lies there, which no pull brought; name a path that is empty" in pod.refused()[1]
    pod.remove("notes.txt")
    first = pod.pulled().commit
    second = hub.repositories["models", "org/tiny"].commit({**FILES, "generation_config.json": b"{}"})
    kind, message = pod.refused()
    assert kind is FailureClass.CONFIGURATION
    assert f"hf://org/tiny@{first} lies there, not hf://org/tiny@{second}; name another path" in message
    assert pod.pulled(f"hf://org/tiny@{first}").kept == len(FILES)
    assert set(pod.stored()) == {*FILES, PULL_MANIFEST}


def test_a_bucket_that_is_not_there_and_keys_that_may_not_write(pod: PullPod) -> None:
    """C-13: bucket and Secret are named."""
    bucket, pod.bucket = pod.bucket, "absent-bucket"
    kind, message = pod.refused()
    assert kind in (FailureClass.STORAGE_AUTH, FailureClass.CONFIGURATION)
    assert "absent-bucket" in message
    pod.bucket = bucket
    (pod.secrets / "store/AWS_SECRET_ACCESS_KEY").write_text("wrong-key")
    kind, message = pod.refused()
    assert kind is FailureClass.STORAGE_AUTH
    assert "finetune-storage" in message

"""publish: the data of a Dataset, from a real MinIO and a ConfigMap to a server that speaks the hub's protocol."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from finetune_api.contract import CONTRACT_VERSION, env
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.publish import PublishConfig, PublishResult
from finetune_api.contract.termination import TerminationMessage
from finetune_api.models.dataset import DatasetSpec
from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.resolve import Split, fetch_data
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.supervisor.environment import pod_environment
from finetune_trainer.verbs.publish import run_publish
from tests.support.hub import HubServer, running_hub
from tests.support.minio import MinioServer

ROWS, HELD_OUT = b'{"text": "one"}\n{"text": "two"}\n', b'{"text": "three"}\n'
TOKEN = "writes"


@dataclass
class PublishPod:
    """Pods of the verb: their directories and Secrets."""

    directory: Path
    hub: HubServer
    bucket: str

    def publish(self, *, private: bool = False, **spec: Any) -> TerminationMessage:
        """Run the verb in a pod of its own."""
        pod = self.directory / f"pod-{len(list(self.directory.glob('pod-*')))}"
        pod.mkdir()
        config = PublishConfig(
            contract_version=CONTRACT_VERSION,
            spec=DatasetSpec.model_validate(
                {"uri": f"s3://{self.bucket}/rows.jsonl", "secretRef": {"name": "finetune-storage"}, "region": "eu-1", **spec}
            ),
            repo_id="org/rows",
            private=private,
            hub_secret="hub-token",
        )
        (pod / "config.json").write_text(config.to_json())
        names = {
            env.ENV_RUN_CONFIG: "config.json",
            env.ENV_WORK_DIR: "work",
            env.ENV_CACHE_DIR: "cache",
            env.ENV_TERMINATION_MESSAGE: "termination",
        }
        variables = {name: str(pod / file) for name, file in names.items()}
        variables |= {env.ENV_SECRETS_DIR: str(self.directory / "secrets"), env.ENV_CONFIGMAP_DIR: str(self.directory / "configmap")}
        code = run_publish(pod_environment(variables))
        message = TerminationMessage.model_validate_json((pod / "termination").read_text())
        assert message.exit_code == code
        return message


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with running_hub() as server:
        server.tokens.add(TOKEN)
        yield server


@pytest.fixture
def pod(tmp_path: Path, hub: HubServer, minio: MinioServer, bucket: str) -> PublishPod:
    push = tmp_path / f"secrets/{env.SECRET_PUSH}"
    push.mkdir(parents=True)
    (push / "HF_ENDPOINT").write_text(hub.endpoint)
    (push / "HF_TOKEN").write_text(TOKEN)
    minio.write_secret(tmp_path / f"secrets/{env.SECRET_DATASET}")
    minio.client().put_object(bucket, "rows.jsonl", io.BytesIO(ROWS), len(ROWS))
    (tmp_path / "configmap/held").mkdir(parents=True)
    (tmp_path / "configmap/held/out.jsonl").write_bytes(HELD_OUT)
    return PublishPod(tmp_path, hub, bucket)


def test_a_dataset_lies_on_the_hub_as_jobs_read_it(pod: PublishPod, tmp_path: Path) -> None:
    """D-18: rows and evaluation rows are splits, the card says so, and hf://org/rows is the same data again."""
    message = pod.publish(private=True, evalUri="configmap://held/out.jsonl", description="Questions and answers.", displayName="Support")
    assert message.exit_code == 0, message.message
    result = PublishResult.model_validate(message.result)
    files = pod.hub.files("org/rows", "datasets")
    assert {name: files[name] for name in ("train.jsonl", "validation.jsonl")} == {"train.jsonl": ROWS, "validation.jsonl": HELD_OUT}
    assert (result.files, result.commit) == (2, pod.hub.repositories["datasets", "org/rows"].revisions["main"])
    assert pod.hub.repositories["datasets", "org/rows"].access == "private"
    assert "# Support\n\nQuestions and answers.\n" in files["README.md"].decode()
    secret = SecretFiles(pod.directory / f"secrets/{env.SECRET_PUSH}", "hub-token")
    context = SourceContext(tmp_path / "reader", tmp_path, tmp_path, secret, offline=False)
    for split, rows in (("train", ROWS), ("validation", HELD_OUT)):
        (path,) = fetch_data(Source("hf://org/rows", "dataset.uri", secret), context, Split(split, None)).files
        assert path.read_bytes() == rows


def test_published_again_the_card_of_people_stays(pod: PublishPod) -> None:
    """D-18: a new commit with the new rows; README.md and visibility are theirs."""
    repository_of = pod.hub.repositories
    pod.hub.add("datasets", "org/rows", {"README.md": b"# Ours\n"})
    first = repository_of["datasets", "org/rows"].revisions["main"]
    message = pod.publish(private=True)
    assert message.exit_code == 0, message.message
    assert repository_of["datasets", "org/rows"].revisions["main"] != first
    assert pod.hub.files("org/rows", "datasets") == {"README.md": b"# Ours\n", "train.jsonl": ROWS}
    assert repository_of["datasets", "org/rows"].access == "public"


@pytest.mark.parametrize(
    ("token", "spec", "kind", "said"),
    [
        ("unknown", {}, FailureClass.HUGGING_FACE_AUTH, "--to org/rows: the hub refuses the key HF_TOKEN of Secret hub-token (401)"),
        ("reads", {}, FailureClass.HUGGING_FACE_AUTH, "--to org/rows: the hub refuses the key HF_TOKEN of Secret hub-token (403)"),
        ("", {}, FailureClass.HUGGING_FACE_AUTH, "publish: Secret hub-token does not exist or lacks the key HF_TOKEN"),
        (TOKEN, {"uri": "s3://{bucket}/absent.jsonl"}, FailureClass.DATA, "nothing there in bucket"),
        (TOKEN, {"uri": "configmap://held/absent.jsonl"}, FailureClass.DATA, "uri configmap://held/absent.jsonl"),
    ],
)
def test_what_is_wrong_is_named(pod: PublishPod, token: str, spec: dict[str, str], kind: FailureClass, said: str) -> None:
    """D-18, X-04: tokens that may not write, data that is not there; nothing is on the hub afterwards."""
    pod.hub.readers.add("reads")
    (pod.directory / f"secrets/{env.SECRET_PUSH}/HF_TOKEN").write_text(token)
    message = pod.publish(**json.loads(json.dumps(spec).replace("{bucket}", pod.bucket)))
    assert message.failure_class is kind
    assert said in message.message
    assert not any("train.jsonl" in files for each in pod.hub.repositories.values() for files in each.commits.values())

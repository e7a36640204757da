"""preflight: what is wrong is known before a GPU is taken (issue 3 no. 7)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.preflight import PreflightResult
from finetune_api.contract.run_config import StoreConfig
from finetune_trainer.sources.hub_stream import EXCERPT_ROWS
from finetune_trainer.store.local import LocalStore
from finetune_trainer.verbs.preflight import run_preflight
from tests.support.hub import running_hub
from tests.support.minio import MinioServer
from tests.support.models import model_files
from tests.support.ports import free_port
from tests.unit.finetune_trainer.verbs.conftest import VerbPod


def test_all_in_order(verb_pod: VerbPod) -> None:
    assert run_preflight(verb_pod.environment()) == 0
    message = verb_pod.message
    assert message.result is not None
    facts = PreflightResult.model_validate(message.result).dataset
    assert facts is not None
    assert (facts.format, facts.examples, facts.is_whole, facts.skipped) == ("text", 2, True, 0)
    assert [check["check"] for check in checks(verb_pod) if check["ok"]] == [
        "environment",
        "secrets",
        "token",
        "store",
        "model",
        "method",
        "data",
        "memory",
        "length",
        "disk",
        "upload",
    ]
    assert list(LocalStore(verb_pod.directory / "store").list()) == []


def checks(pod: VerbPod) -> list[dict[str, Any]]:
    result = pod.message.result
    assert result is not None
    found: Any = result["checks"]
    return list(found)


def expect(pod: VerbPod, changes: dict[str, Any], kind: FailureClass, text: str) -> None:
    code = run_preflight(pod.environment(changes))
    assert pod.message.failure_class == kind
    assert text in pod.message.message
    assert code == pod.message.exit_code != 0


def test_unreadable_row_names_file_and_line(verb_pod: VerbPod) -> None:
    (verb_pod.directory / "configmap/data/train.jsonl").write_text('{"text": "one"}\n{broken\n')
    expect(verb_pod, {}, FailureClass.DATA, "train.jsonl, line 2")


def test_a_stream_is_judged_by_its_first_rows(verb_pod: VerbPod) -> None:
    """E-14, X30: no count and no warning of few rows; only the first block of the file is fetched."""
    changes = {"dataset": {"uri": "hf://acme/rows", "streaming": True}, "training": {"maxSteps": 10}}
    secret = verb_pod.directory / "secrets/huggingface"
    secret.mkdir(parents=True)
    with running_hub() as hub:
        (secret / "HF_ENDPOINT").write_text(hub.endpoint)
        hub.add("datasets", "acme/rows", {"train.jsonl": b'{"text": "one"}\n' * 2_000_000})
        assert run_preflight(verb_pod.environment(changes)) == 0
        assert len([path for path in hub.downloads() if path.endswith(".jsonl")]) == 1
        facts = PreflightResult.model_validate(verb_pod.message.result).dataset
        assert facts is not None
        assert (facts.examples, facts.is_whole) == (EXCERPT_ROWS, False)
        hub.add("datasets", "acme/rows", {"train.jsonl": b'{"text": 3}\n'})
        expect(verb_pod, changes, FailureClass.DATA, "train.jsonl, line 1")


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({"dataset": {"uri": "configmap://data/absent.jsonl"}}, FailureClass.DATA, "it has train.jsonl"),
        ({"model": {"uri": "pvc://models/absent"}}, FailureClass.MODEL, "models holds tiny"),
        ({"secrets": {"huggingface": {"secretRef": {"name": "hub-token"}}}}, FailureClass.HUGGING_FACE_AUTH, "Secret hub-token"),
        (
            {"logging": {"trackers": [{"type": "wandb", "secretRef": {"name": "wandb-key"}}]}},
            FailureClass.CONFIGURATION,
            "Secret wandb-key of wandb does not exist or lacks WANDB_API_KEY",
        ),
        ({"adapter": {"peftConfig": "configmap://peft/absent.json"}}, FailureClass.CONFIGURATION, "adapter.peftConfig"),
        ({"checkpoint": {"resumeFrom": "checkpoint-500"}}, FailureClass.CHECKPOINT_INCOMPLETE, "no complete checkpoint-500"),
        ({"checkpoint": {"resumeFrom": "pvc://models/tiny"}}, FailureClass.CHECKPOINT_INCOMPLETE, "is a full checkpoint"),
    ],
)
def test_bad_input_is_named(verb_pod: VerbPod, changes: dict[str, Any], kind: FailureClass, text: str) -> None:
    expect(verb_pod, changes, kind, text)


def test_model_without_config(verb_pod: VerbPod) -> None:
    (verb_pod.directory / "pvc/models/tiny/config.json").unlink()
    expect(verb_pod, {}, FailureClass.MODEL, "config.json is missing")


def test_all_failures_are_listed(verb_pod: VerbPod) -> None:
    (verb_pod.directory / "pvc/models/tiny/config.json").unlink()
    (verb_pod.directory / "configmap/data/train.jsonl").unlink()
    expect(verb_pod, {}, FailureClass.MODEL, "(1 more in the log)")
    assert [check["check"] for check in checks(verb_pod) if not check["ok"]] == ["model", "data"]


def test_legacy_weights_are_a_warning(verb_pod: VerbPod) -> None:
    model = verb_pod.directory / "pvc/models/tiny"
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert run_preflight(verb_pod.environment()) == 0
    assert verb_pod.message.warnings[0].startswith("LegacyWeights: ")


def test_wrong_keys(minio: MinioServer, bucket: str, tmp_path: Path) -> None:
    minio.write_secret(tmp_path / "secrets/store", secret_key="wrong")
    pod = VerbPod(tmp_path, StoreConfig(uri=f"s3://{bucket}/team/job"))
    expect(pod, {}, FailureClass.STORAGE_AUTH, "Secret finetune-storage")


def test_bucket_without_permission(minio: MinioServer, bucket: str, tmp_path: Path) -> None:
    """Keys that are valid and may only read: what they must be allowed to do, and where."""
    secret_key = minio.add_user("reader", "readonly")
    minio.write_secret(tmp_path / "secrets/store", access_key="reader", secret_key=secret_key)
    pod = VerbPod(tmp_path, StoreConfig(uri=f"s3://{bucket}/team/job"))
    said = f"the keys in Secret finetune-storage must be valid and allowed to list, read, write and delete in bucket {bucket}"
    expect(pod, {}, FailureClass.STORAGE_AUTH, said)
    assert "AccessDenied" in pod.message.message


def test_store_that_is_away_is_no_user_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "secrets/store"
    secret.mkdir(parents=True)
    for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (secret / key).write_text("x")
    monkeypatch.setattr("finetune_trainer.verbs.preflight.STORE_PATIENCE_SECONDS", 0.5)
    pod = VerbPod(tmp_path, StoreConfig(uri="s3://bucket/team/job", endpoint=f"http://127.0.0.1:{free_port()}"))
    assert run_preflight(pod.environment()) == 77
    assert pod.message.failure_class == FailureClass.STORAGE_UNAVAILABLE


def test_dataset_secret_is_used_for_the_data(minio: MinioServer, bucket: str, tmp_path: Path) -> None:
    minio.write_secret(tmp_path / "secrets/store")
    pod = VerbPod(tmp_path, StoreConfig(uri=f"s3://{bucket}/team/job"))
    minio.client().fput_object(bucket, "rows/train.jsonl", str(tmp_path / "configmap/data/train.jsonl"))
    changes = {"dataset": {"uri": f"s3://{bucket}/rows/train.jsonl", "region": "us-east-1", "secretRef": {"name": "data-secret"}}}
    expect(pod, changes, FailureClass.STORAGE_AUTH, "Secret data-secret")
    minio.write_secret(tmp_path / "secrets/dataset")
    assert run_preflight(pod.environment(changes)) == 0


READS = {"model": {"uri": "hf://acme/tiny"}, "secrets": {"huggingface": {"secretRef": {"name": "hub-token"}}}}


@pytest.mark.parametrize(
    ("token", "changes", "status"),
    [
        ("reads", {}, "True"),
        ("expired", {}, "False"),
        ("expired", {"model": {"uri": "pvc://models/tiny"}}, None),
    ],
    ids=["a token", "no token any more", "nothing of a hub is read"],
)
def test_a_token_that_only_reads_is_checked(verb_pod: VerbPod, token: str, changes: dict[str, Any], status: str | None) -> None:
    """X-03: also for public files, which a hub refuses to who shows a wrong token; named by field, Secret and key."""
    secret = verb_pod.directory / "secrets/huggingface"
    secret.mkdir(parents=True)
    with running_hub() as hub:
        (secret / "HF_ENDPOINT").write_text(hub.endpoint)
        (secret / "HF_TOKEN").write_text(token)
        hub.readers.add("reads")
        hub.add("models", "acme/tiny", model_files())
        code = run_preflight(verb_pod.environment(READS | changes))
        asked = hub.requests.count("GET /api/whoami-v2")
    message = verb_pod.message
    assert message.result is not None
    told = PreflightResult.model_validate(message.result).token
    assert (told.status if told is not None else None) == status
    assert asked == (0 if status is None else 1)
    if status == "False":
        assert message.failure_class == FailureClass.HUGGING_FACE_AUTH
        assert "secrets.huggingface.secretRef: the key HF_TOKEN of Secret hub-token is not a valid token" in message.message
    else:
        assert code == 0


def test_a_hub_that_knows_no_tokens_refuses_nothing(verb_pod: VerbPod) -> None:
    """X-03: mirrors and proxies answer 404 or fail."""
    secret = verb_pod.directory / "secrets/huggingface"
    secret.mkdir(parents=True)
    with running_hub() as hub:
        (secret / "HF_ENDPOINT").write_text(hub.endpoint)
        (secret / "HF_TOKEN").write_text("any")
        hub.add("models", "acme/tiny", model_files())
        hub.failures = 1
        assert run_preflight(verb_pod.environment(READS)) == 0
    assert verb_pod.message.result is not None
    told = PreflightResult.model_validate(verb_pod.message.result).token
    assert told is not None
    assert (told.status, told.reason) == ("Unknown", "NotSaid")
    assert "answers 503" in told.message

"""kubectl finetune dataset publish: the Job it makes of a Dataset or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_api.contract import env
from finetune_api.contract.publish import PublishConfig
from finetune_cli import bucket as bucket_module
from finetune_cli.__main__ import app
from finetune_cli.access import Access
from finetune_cli.errors import CliError
from finetune_cli.job_runner import JobRunner
from finetune_cli.publishing import Publication, build_publication
from finetune_cli.short_jobs import ShortJob, Surroundings
from tests.unit.finetune_cli.test_datasets import READY, Namespace, Objects

HERE = Surroundings("registry/trainer:1")
SPEC = {
    "uri": "pvc://data/rows.jsonl",
    "evalUri": "configmap://held/out.jsonl",
    "secretRef": {"name": "keys"},
    "secrets": {"huggingface": {"secretRef": {"name": "reader"}}},
}


def test_the_pod_sees_what_the_dataset_names() -> None:
    """D-18: claims and ConfigMaps of its addresses, its credentials, and the token that writes; nothing may be written to."""
    job, config_map = build_publication(Publication(SPEC, "hf://org/rows", private=True, hub_secret="writer", namespace="team"), HERE)
    config = PublishConfig.model_validate_json(config_map["data"]["config.json"])
    assert (config.repo_id, config.private, config.spec.uri) == ("org/rows", True, "pvc://data/rows.jsonl")
    assert job["metadata"]["name"].startswith("publish-rows-")
    pod = job["spec"]["template"]["spec"]
    mounts = {mount["mountPath"]: mount for mount in pod["containers"][0]["volumeMounts"]}
    sources = {volume["name"]: volume for volume in pod["volumes"]}
    for path, source in {
        f"{env.PVC_DIR}/data": {"persistentVolumeClaim": {"claimName": "data", "readOnly": True}},
        f"{env.CONFIGMAP_DIR}/held": {"configMap": {"name": "held", "optional": True}},
    }.items():
        assert mounts[path]["readOnly"] is True
        assert {**sources[mounts[path]["name"]]} == {"name": mounts[path]["name"], **source}
    secrets = {mount: sources[mounts[mount]["name"]]["secret"]["secretName"] for mount in mounts if mount.startswith(env.SECRETS_DIR)}
    assert secrets == {
        f"{env.SECRETS_DIR}/{env.SECRET_PUSH}": "writer",
        f"{env.SECRETS_DIR}/{env.SECRET_DATASET}": "keys",
        f"{env.SECRETS_DIR}/{env.SECRET_HUGGINGFACE}": "reader",
    }


@pytest.mark.parametrize("target", ["s3://bucket/rows", "hf://rows", "org/a/b"])
def test_a_target_that_is_no_repository(target: str) -> None:
    """D-18."""
    with pytest.raises(CliError, match=f"--to {target} is no repository; write hf://org/name"):
        build_publication(Publication(SPEC, target, private=False, hub_secret="writer", namespace="team"), HERE)


def test_a_dataset_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-18: a Dataset by its name; a file goes to the store first, without becoming a Dataset; anything else is said to be neither."""
    store, namespace = Objects(), Namespace(READY)
    started: list[PublishConfig] = []

    def start(_: JobRunner, objects: ShortJob) -> bool:
        started.append(PublishConfig.model_validate_json(objects.config_map["data"]["config.json"]))
        return True

    def follow(*_: Any) -> dict[str, object]:
        return {"url": "https://hub/datasets/org/rows", "commit": "c0ffee", "files": 1, "sizeBytes": 16}

    monkeypatch.setattr(bucket_module, "open_bucket", lambda _uri, _credentials, _endpoint: store)
    monkeypatch.setattr(Access, "connect", lambda _: namespace)
    for name, replacement in (("__init__", lambda *_: None), ("start", start), ("follow", follow)):
        monkeypatch.setattr(JobRunner, name, replacement)
    file = tmp_path / "Rows of ours.jsonl"
    file.write_text('{"text": "one"}\n')
    words = ("--to", "hf://org/rows", "--hub-secret", "writer", "--image", "trainer", "-n", "team")
    for what in (READY["metadata"]["name"], str(file)):
        done = CliRunner().invoke(app, ["dataset", "publish", what, *words])
        assert done.exit_code == 0, done.output
        assert "1 files, 16 B, are at https://hub/datasets/org/rows (commit c0ffee)" in done.output
    (key,) = store.stored
    assert [config.spec.uri for config in started] == [READY["spec"]["uri"], f"s3://finetune/{key}"]
    assert not any(config.private for config in started)
    assert namespace.put == []
    refused = CliRunner().invoke(app, ["dataset", "publish", "absent", *words])
    assert "absent is no file, and namespace team has no Dataset of this name; it has support" in str(refused.exception)

"""The Python that travels in the chart: waiting for kinds, making the model of the Helm test, running its job."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from tests.unit.helm.chart import CHART

FILES = CHART / "files"


def load(path: Path) -> ModuleType:
    """The module in a file, as the pod runs it: what lies beside it can be imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


@pytest.fixture(autouse=True)
def in_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pod's credentials are looked for."""
    monkeypatch.setattr(config, "load_incluster_config", lambda: None)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[], float]:
    """A clock that moves by the time that is slept."""
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return lambda: now[0]


class ServedKinds:
    """Stands in for discovery: each call answers with the next of the given sets."""

    def __init__(self, *answers: set[str] | int) -> None:
        self._answers = iter(answers)
        self._last: set[str] | int = set()

    def get_api_resources(self, group: str, version: str) -> SimpleNamespace:
        self._last = next(self._answers, self._last)
        if isinstance(self._last, int):
            raise client.ApiException(status=self._last)
        return SimpleNamespace(resources=[SimpleNamespace(name=name) for name in self._last])


def await_kinds(monkeypatch: pytest.MonkeyPatch, *answers: set[str] | int) -> int:
    """Run the script for two kinds and ten seconds."""
    monkeypatch.setattr(client, "CustomObjectsApi", lambda: ServedKinds(*answers))
    return int(load(FILES / "install" / "await_kinds.py").main("finetune.dev", "v1alpha1", "10", "jobs", "presets"))


def test_waits_until_every_kind_is_served(monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float]) -> None:
    """An unknown group (404) and a part of the kinds are not enough."""
    assert await_kinds(monkeypatch, 404, {"jobs"}, {"jobs", "presets", "jobs/status"}) == 0
    assert clock() == 2


def test_names_the_kinds_that_never_came(
    monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float], capsys: pytest.CaptureFixture[str]
) -> None:
    """After the time limit it says what to do."""
    assert await_kinds(monkeypatch, {"jobs"}) == 1
    assert "['presets']: install the CRDs (crds.install=true)" in capsys.readouterr().err


def test_a_refusal_is_not_waited_out(monkeypatch: pytest.MonkeyPatch, clock: Callable[[], float]) -> None:
    """Anything but 404 is an error at once."""
    with pytest.raises(client.ApiException):
        await_kinds(monkeypatch, 403)


class Bucket:
    """Stands in for the store's client; remembers how it was made and what was uploaded."""

    made: dict[str, Any]
    objects: dict[str, int]

    def __init__(self, endpoint: str, **options: Any) -> None:
        Bucket.made = {"endpoint": endpoint, **options}
        Bucket.objects = {}

    def fput_object(self, bucket: str, key: str, file: str) -> None:
        self.objects[f"{bucket}/{key}"] = Path(file).stat().st_size


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The mounted Secret of the store."""
    monkeypatch.setenv("STORE_SECRET_DIR", str(tmp_path))
    monkeypatch.setattr("minio.Minio", Bucket)
    yield tmp_path
    sys.modules.pop("tiny_model", None)


def test_uploads_a_model_that_can_be_trained(credentials: Path) -> None:
    """The model is a whole Hugging Face directory, made from the rows of the test itself."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "AWS_REGION": "r",
    }.items():
        (credentials / name).write_text(value + "\n")
    assert load(FILES / "test" / "upload_model.py").main(str(FILES / "test" / "train.jsonl"), "bucket", "some/prefix") == 0
    assert Bucket.made == {
        "endpoint": "minio:9000", "access_key": "a", "secret_key": "b", "session_token": None, "secure": False, "region": "r",
    }  # fmt: skip
    names = {key.removeprefix("bucket/some/prefix/") for key in Bucket.objects}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert sum(Bucket.objects.values()) < 5_000_000


def test_store_without_endpoint_is_aws(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in jobs; a CA of one's own is trusted."""
    monkeypatch.setenv("SSL_CERT_FILE", "before")
    (credentials / "ca.crt").write_text("-----BEGIN CERTIFICATE-----")
    load(FILES / "test" / "upload_model.py").connect(credentials)
    assert (Bucket.made["endpoint"], Bucket.made["secure"]) == ("s3.amazonaws.com", True)
    assert os.environ["SSL_CERT_FILE"] == str(credentials / "ca.crt")


class JobsApi:
    """Stands in for the API server: one job whose phase moves on with each look."""

    def __init__(self, *phases: str, present: bool = False) -> None:
        self.log: list[str] = []
        self._phases = list(phases)
        self._present = present

    def create_namespaced_custom_object(self, group: str, version: str, namespace: str, plural: str, body: dict[str, Any]) -> None:
        self.log.append(f"create {namespace}/{body['metadata']['name']}")
        self._present = True

    def get_namespaced_custom_object(self, group: str, version: str, namespace: str, plural: str, name: str) -> dict[str, Any]:
        if not self._present:
            raise client.ApiException(status=404)
        if "create" not in "".join(self.log) or not self._phases:
            return {}
        phase = self._phases.pop(0) if len(self._phases) > 1 else self._phases[0]
        conditions = [{"type": "Stalled", "message": "out of memory"}, {"type": "Valid", "message": ""}]
        return {"status": {"phase": phase, "conditions": conditions, "artifacts": {"finalUri": "s3://b/final"}, "progress": {"loss": 1.5}}}

    def patch_namespaced_custom_object(self, *path: Any, **options: Any) -> None:
        annotations = path[-1]["metadata"]["annotations"]
        self.log.append(f"allow {annotations['finetune.dev/allow-delete-running']}")

    def delete_namespaced_custom_object(self, *path: str) -> None:
        self.log.append(f"delete {path[-1]}")
        self._present = False


def run_job(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, api: JobsApi) -> int:
    """Run the script against a stand-in."""
    monkeypatch.setattr(client, "CustomObjectsApi", lambda: api)
    manifest = tmp_path / "job.yaml"
    manifest.write_text(yaml.safe_dump({"metadata": {"name": "tiny", "namespace": "ns"}}))
    return int(load(FILES / "test" / "run_job.py").main(str(manifest), "60"))


def test_runs_a_job_from_nothing_to_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Callable[[], float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Created, followed with each phase said once, deleted."""
    api = JobsApi("Pending", "Training", "Training", "Succeeded")
    assert run_job(monkeypatch, tmp_path, api) == 0
    assert api.log == ["create ns/tiny", "allow true", "delete tiny"]
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["phase"] for line in said[:-1]] == ["Pending", "Training", "Succeeded"]
    assert said[-1] == {"adapter": "s3://b/final", "loss": 1.5}


def test_removes_what_an_earlier_test_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Callable[[], float]) -> None:
    """A job of that name goes first, running or not."""
    api = JobsApi("Succeeded", present=True)
    assert run_job(monkeypatch, tmp_path, api) == 0
    assert api.log == ["allow true", "delete tiny", "create ns/tiny", "allow true", "delete tiny"]


@pytest.mark.parametrize("phase", ["Failed", "Training"])
def test_a_job_that_fails_or_hangs_is_shown_and_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, clock: Callable[[], float], capsys: pytest.CaptureFixture[str], phase: str
) -> None:
    """Exit code 1, why, and the job stays to be looked at."""
    api = JobsApi(phase)
    assert run_job(monkeypatch, tmp_path, api) == 1
    assert api.log == ["create ns/tiny"]
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["conditions"] == {"Stalled": "out of memory"}

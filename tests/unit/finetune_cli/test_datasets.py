"""Datasets on the command line: what there is, files that become one, and jobs that name one."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from typer.testing import CliRunner

from finetune_api.documents import validate_document
from finetune_cli import bucket as bucket_module
from finetune_cli.__main__ import app
from finetune_cli.access import Access
from finetune_cli.cluster import Cluster
from finetune_cli.datasets import Upload, build_dataset, content_key, render_datasets, upload_file
from finetune_cli.errors import CliError
from finetune_cli.evaluation import build_evaluation, choose_checkpoints
from finetune_cli.store import StoredFile
from tests.unit.finetune_cli.builders import make_checkpoint, make_job, recording_console

JOB = """\
apiVersion: finetune.dev/v1alpha1
kind: FineTuneJob
metadata: {name: demo}
spec:
  model: {uri: hf://org/model}
  dataset: {uri: "ref:rows", maxSamples: 5}
"""
ROWS = """\
apiVersion: finetune.dev/v1alpha1
kind: Dataset
metadata: {name: rows}
spec: {uri: configmap://sft/train.jsonl, format: text}
"""
KEYS = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "key", "AWS_ENDPOINT_URL": "http://store:9000"}


def run(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    if isinstance(result.exception, CliError):
        raise result.exception
    return result.exit_code, result.output


def dataset(name: str, phase: str, message: str = "", spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": str(phase == "ReadyForTraining"), "message": message}]
    return {
        "metadata": {"name": name, "generation": 1},
        "spec": {"uri": "hf://org/rows", **(spec or {})},
        "status": {"phase": phase, "observedGeneration": 1, "conditions": conditions, **status},
    }


READY = dataset("support", "ReadyForTraining", "ok", {"description": "Chats.", "origin": "upload"}, examples=12345, format="messages")
PART = dataset("big", "ReadyForTraining", examples=100000, isWhole=False, format="text")
INVALID = dataset("broken", "Invalid", "train.jsonl, line 7: no text")


class Namespace:
    """A cluster whose namespace has these Datasets; what is put is kept."""

    access = Access()

    def __init__(self, *found: dict[str, Any]) -> None:
        self.found = list(found)
        self.put: list[Any] = []

    def deployments(self, selector: str) -> list[dict[str, Any]]:
        assert "finetune-operator" in selector
        return []

    def datasets(self, namespace: str) -> list[dict[str, Any]]:
        assert namespace == "team"
        return self.found

    def secret(self, name: str, namespace: str) -> dict[str, str]:
        assert (name, namespace) == ("finetune-storage", "team")
        return KEYS

    def put_dataset(self, manifest: Any) -> bool:
        self.put.append(manifest)
        return len(self.put) == 1


class Objects:
    """A bucket."""

    def __init__(self) -> None:
        self.stored: dict[str, bytes] = {}
        self.writes = 0

    def files(self, prefix: str) -> list[StoredFile]:
        return [StoredFile(key, len(data)) for key, data in self.stored.items() if key.startswith(prefix)]

    def write(self, key: str, path: Path) -> None:
        self.writes += 1
        self.stored[key] = path.read_bytes()


def test_datasets_are_listed_and_those_that_are_ready_marked() -> None:
    """D-04, D-05: with their examples; what keeps the others is said."""
    console = recording_console(width=160)
    console.print(render_datasets([READY, INVALID, PART]))
    header, *rows = ([cell.strip() for cell in line.split("  ") if cell.strip()] for line in console.export_text().splitlines())
    assert header == ["NAME", "PHASE", "EXAMPLES", "FORMAT", "ORIGIN", "WHAT IT SAYS"]
    assert rows == [
        ["✓", "big", "ReadyForTraining", "100,000+", "text"],
        ["broken", "Invalid", "train.jsonl, line 7: no text"],
        ["✓", "support", "ReadyForTraining", "12,345", "messages", "upload", "Chats."],
    ]


def test_only_ready_ones_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """D-04."""
    monkeypatch.setattr(Access, "connect", lambda _: Namespace(READY, INVALID))
    code, output = run("datasets", "--ready", "-n", "team")
    assert code == 0
    assert "support" in output
    assert "broken" not in output
    monkeypatch.setattr(Access, "connect", lambda _: Namespace(INVALID))
    with pytest.raises(CliError, match="namespace team has no Dataset that is ready"):
        run("datasets", "--ready", "-n", "team")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Objects:
    made = Objects()
    monkeypatch.setattr(bucket_module, "open_bucket", lambda _uri, _credentials, _endpoint: made)
    return made


def test_a_file_becomes_a_dataset_under_a_key_of_its_content(tmp_path: Path, store: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-02: uploaded once; the same name gets the next file."""
    file = tmp_path / "Chats.jsonl"
    file.write_text('{"text": "one"}\n')
    namespace = Namespace()
    monkeypatch.setattr(Access, "connect", lambda _: namespace)
    words = ("dataset", "upload", file, "--name", "chats", "--description", "Chats.", "--format", "text", "-n", "team")
    code, output = run(*words)
    assert code == 0
    key = f"team/datasets/{hashlib.sha256(file.read_bytes()).hexdigest()[:32]}/rows.jsonl"
    assert store.stored == {key: file.read_bytes()}
    assert f"uploaded to s3://finetune/{key}" in output
    assert "dataset/chats created in namespace team" in output
    (manifest,) = namespace.put
    validate_document(manifest)
    assert manifest["metadata"] == {"name": "chats", "namespace": "team"}
    assert manifest["spec"] == {
        "origin": "upload",
        "uri": f"s3://finetune/{key}",
        "secretRef": {"name": "finetune-storage"},
        "region": "us-east-1",
        "description": "Chats.",
        "format": "text",
    }
    output = run(*words)[1]
    assert store.writes == 1
    assert "is already at" in output
    assert "dataset/chats changed" in output


def test_what_cannot_become_one_is_refused_before_anything_is_sent(tmp_path: Path, store: Objects) -> None:
    def asked(name: str = "chats", file: str = "rows.jsonl", where: str = "s3://finetune") -> Upload:
        return Upload(tmp_path / file, name, "team", where, "finetune-storage")

    (tmp_path / "rows.jsonl").write_text("{}\n")
    cluster: Any = Namespace()
    for upload, says in (
        (asked(file="rows.pdf"), "is of no kind that can be read; it must end in one of .jsonl"),
        (asked(file="absent.jsonl"), "cannot be read: No such file"),
        (asked(name="7-of-9"), "must have at most 50 characters, start with a letter"),
        (asked(where="file:///tmp"), "is no bucket; write s3://bucket"),
    ):
        with pytest.raises(CliError) as caught:
            upload_file(upload, cluster)
        assert says in str(caught.value)
    assert (store.writes, cluster.put) == (0, [])
    assert content_key(asked()).endswith("/rows.jsonl")
    assert build_dataset(asked(), "s3://finetune/x/rows.jsonl", "eu-central-1")["spec"]["region"] == "eu-central-1"


class FakeApi:
    """The custom objects API: a name that is taken or not."""

    def __init__(self, *, taken: bool) -> None:
        self.taken = taken
        self.patches: list[Any] = []

    def create_namespaced_custom_object(self, *arguments: Any) -> Any:
        if self.taken:
            raise ApiException(status=409, reason="Conflict")
        return arguments[-1]

    def patch_namespaced_custom_object(self, *arguments: Any) -> None:
        self.patches.append(arguments[-2:])


@pytest.mark.parametrize("taken", [False, True])
def test_a_dataset_is_created_or_changed(taken: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """D-02: fields that the upload does not know of stay."""
    api = FakeApi(taken=taken)
    cluster = Cluster(Access(), ApiClient())
    monkeypatch.setattr(cluster, "_custom", api)
    made = cluster.put_dataset({"metadata": {"name": "rows", "namespace": "team"}, "spec": {"uri": "hf://a/b"}})
    assert made is not taken
    assert api.patches == ([("rows", {"spec": {"uri": "hf://a/b"}})] if taken else [])


def test_a_dataset_in_the_same_manifest_judges_its_job(tmp_path: Path) -> None:
    """Validate and plan take both; the plan says who decided."""
    manifest = tmp_path / "job.yaml"
    manifest.write_text(f"{JOB}---\n{ROWS}")
    assert run("validate", "-f", manifest) == (0, f"{manifest}: FineTuneJob demo: valid\n{manifest}: Dataset rows: valid\n")
    code, output = run("plan", "-f", manifest)
    assert code == 0
    line = next(line for line in output.splitlines() if line.startswith("dataset.uri"))
    assert line.split() == ["dataset.uri", "configmap://sft/train.jsonl", "Dataset", "rows"]
    values = json.loads(run("plan", "-f", manifest, "-o", "json")[1])
    assert values["dataset.format"] == {"value": "text", "source": "dataset"}
    manifest.write_text(f"{JOB}  method: dpo\n---\n{ROWS}")
    code, output = run("validate", "-f", manifest)
    assert (code, "spec.dataset.format" in output) == (1, True)


def test_a_dataset_in_a_file_of_its_own(tmp_path: Path) -> None:
    """One that only the cluster knows cannot be judged here: the sentence says how."""
    manifest, rows = tmp_path / "job.yaml", tmp_path / "rows.yaml"
    manifest.write_text(JOB)
    rows.write_text(ROWS)
    assert run("plan", "-f", manifest, "--dataset-file", rows)[0] == 0
    with pytest.raises(CliError, match=r"spec\.dataset\.uri: ref:rows: the Dataset rows is not known here; known: none") as caught:
        run("validate", "-f", manifest)
    assert "kubectl get dataset rows -o yaml" in caught.value.advice


LOOKED_AT = """\
status: {phase: ReadyForTraining, examples: 3200, isWhole: true, tokens: {rows: 2000, p50: 210, p95: 480, max: 900}}
"""


def plan_of(tmp_path: Path, rows: str, job: str = JOB, *more: str) -> str:
    """What the plan of a job says, with its Dataset in a file as the cluster prints it."""
    manifest, dataset = tmp_path / "job.yaml", tmp_path / "rows.yaml"
    manifest.write_text(job)
    dataset.write_text(rows)
    code, output = run("plan", "-f", manifest, "--dataset-file", dataset, *more)
    assert code == 0
    return " ".join(output.split())


def test_a_plan_knows_what_the_look_at_its_dataset_found(tmp_path: Path) -> None:
    """F-08, O-15: rows, how long they are, what maxSeqLength cuts and what suits; --rows wins, maxSamples bounds."""
    told = plan_of(tmp_path, ROWS + LOOKED_AT, JOB.replace(", maxSamples: 5", ""))
    assert "; 800 optimizer steps; " in told
    assert "Dataset rows: 3200 rows; of 2000 that were counted half have at most 210 tokens, 95 % at most 480, the longest 900" in told
    assert "; training.maxSeqLength 512 cuts about 5 % of them or less" in told
    assert "training.maxSeqLength 512 cuts rows: 904 holds all rows that were counted." in told
    assert "; 2 optimizer steps; " in plan_of(tmp_path, ROWS + LOOKED_AT)
    assert "; 200 optimizer steps; " in plan_of(tmp_path, ROWS + LOOKED_AT, JOB, "--rows", "800")


def test_a_plan_says_how_to_know_the_rows_of_a_dataset(tmp_path: Path) -> None:
    """F-08: where its status is not there, or nobody counted tokens."""
    assert "Dataset rows: its rows are not known here; kubectl get dataset rows -o yaml prints them" in plan_of(tmp_path, ROWS)
    counted = plan_of(tmp_path, f"{ROWS}status: {{examples: 1, isWhole: false}}\n")
    assert "Dataset rows: 1 row or more; how long they are is counted where the Dataset has spec.tokenizer" in counted
    assert "2 epochs" in counted


def test_a_status_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CliError, match=r"Dataset rows: status\.tokens\.p95: Field required"):
        plan_of(tmp_path, f"{ROWS}status: {{examples: 1, tokens: {{rows: 1, p50: 1, max: 1}}}}\n")


def test_an_evaluation_is_of_the_data_that_was_trained_on() -> None:
    """Whatever the Dataset stands for by now; --eval-uri fits beside it."""
    resolved = {
        "dataset.uri": {"value": "s3://rows/a.jsonl", "source": "dataset", "name": "rows"},
        "dataset.secretRef.name": {"value": "keys", "source": "dataset", "name": "rows"},
        "dataset.region": {"value": "us-east-1", "source": "dataset", "name": "rows"},
        "dataset.split": {"value": "train"},
    }
    job = make_job(
        "Succeeded",
        spec={"dataset": {"uri": "ref:rows", "maxSamples": 5}},
        resolved=resolved,
        checkpoints={"recent": [make_checkpoint(10)]},
    )
    (checkpoint,) = choose_checkpoints(job, [10])
    made = build_evaluation(job, checkpoint, "hf://org/held-out")
    validate_document(made)
    assert made["spec"]["dataset"] == {
        "uri": "s3://rows/a.jsonl",
        "secretRef": {"name": "keys"},
        "region": "us-east-1",
        "maxSamples": 5,
        "evalUri": "hf://org/held-out",
        "evalRatio": 0,
    }
    with pytest.raises(CliError, match="has not run yet: what ref:rows stands for is not known"):
        build_evaluation(make_job(spec={"dataset": {"uri": "ref:rows"}}), checkpoint, "hf://org/held-out")

"""Each tracker as its own library and server see it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from finetune_trainer.worker.trackers import mlflow_run, tensorboard_files, wandb_run
from finetune_trainer.worker.trackers.target import Target, dotted


def target(kind: str, directory: Path, **changes: Any) -> Target:
    """A run to track."""
    values: dict[str, Any] = {
        "job_name": "job",
        "job_uid": "uid-1",
        "project": "team",
        "uri": None,
        "secrets": directory,
        "directory": directory / "tensorboard",
        "attempt": 1,
        "first_step": 1,
        "parameters": {"training": {"learningRate": 2e-4}, "adapter": {"targetModules": ["q_proj"]}},
    }
    return Target(kind, **(values | changes))


def test_parameters_are_named_as_in_the_spec() -> None:
    """Dotted paths, lists as they are."""
    assert dotted({"a": {"b": {"c": 1}, "d": [2]}, "e": None}) == {"a.b.c": 1, "a.d": [2], "e": None}


def test_tensorboard_goes_on_over_attempts(tmp_path: Path) -> None:
    """Steps trained again show once, with the last attempt's values."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: PLC0415  # seconds, and only here

    for attempt, steps in ((1, range(1, 6)), (2, range(4, 8))):
        tracker = tensorboard_files.connect(target("tensorboard", tmp_path, attempt=attempt, first_step=steps[0]))
        for step in steps:
            tracker.log(step, {"train/loss": float(10 * attempt + step)})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (1, 11.0),
        (2, 12.0),
        (3, 13.0),
        (4, 24.0),
        (5, 25.0),
        (6, 26.0),
        (7, 27.0),
    ]


class MlflowServer:
    """As much of a tracking server as a run needs."""

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, Any]] = {}
        self.authorization: set[str | None] = set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}"))

            def answer(self, body: dict[str, Any]) -> None:
                outer.authorization.add(self.headers["Authorization"])
                reply = outer.handle(urlsplit(self.path).path.rpartition("/mlflow/")[2], body)
                content = json.dumps(reply if reply is not None else {"error_code": "RESOURCE_DOES_NOT_EXIST"}).encode()
                self.send_response(200 if reply is not None else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def uri(self) -> str:
        """Address."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def handle(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Answer a request; None: there is no such thing."""
        match path:
            case "experiments/get-by-name":
                return {"experiment": {"experiment_id": "7", "name": body["experiment_name"]}} if self.runs else None
            case "experiments/create":
                return {"experiment_id": "7"}
            case "runs/search":
                wanted = body["filter"].rpartition("= ")[2].strip("'")
                return {"runs": [self.described(key) for key, run in self.runs.items() if wanted in run["tags"].values()]}
            case "runs/create":
                tags = {tag["key"]: tag["value"] for tag in body["tags"]}
                self.runs["run-1"] = {"tags": tags, "params": {}, "metrics": {}, "status": "RUNNING"}
                return {"run": self.described("run-1")}
            case "runs/log-parameter":
                self.runs[body["run_id"]]["params"][body["key"]] = body["value"]
            case "runs/log-batch":
                for metric in body["metrics"]:
                    self.runs[body["run_id"]]["metrics"][metric["key"], metric["step"]] = metric["value"]
            case "runs/update":
                self.runs[body["run_id"]]["status"] = body["status"]
                return {"run_info": self.described(body["run_id"])["info"]}
            case _:  # whatever else the client asks about a run has an empty answer
                pass
        return {}

    def described(self, key: str) -> dict[str, Any]:
        """A run as the API shows it."""
        info = {"run_id": key, "run_uuid": key, "experiment_id": "7", "status": self.runs[key]["status"], "lifecycle_stage": "active"}
        return {"info": info, "data": {"metrics": [], "params": [], "tags": []}}


@pytest.fixture
def mlflow_server() -> Iterator[MlflowServer]:
    """A running server."""
    server = MlflowServer()
    yield server
    server.server.shutdown()
    server.server.server_close()


def test_mlflow_has_one_run_for_all_attempts(tmp_path: Path, mlflow_server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found again by the job's uid; parameters once, metrics by step, the Secret's token as credential."""
    for name in mlflow_run.CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "MLFLOW_TRACKING_TOKEN").write_text("secret\n")
    for attempt, steps in ((1, (1, 2)), (2, (2, 3))):
        tracker = mlflow_run.connect(target("mlflow", tmp_path, uri=mlflow_server.uri, attempt=attempt))
        for step in steps:
            tracker.log(step, {"train/loss": float(10 * attempt + step)})
        assert mlflow_server.runs["run-1"]["status"] == "RUNNING"
        tracker.close()
    assert list(mlflow_server.runs) == ["run-1"]
    run = mlflow_server.runs["run-1"]
    assert run["tags"][mlflow_run.TAG] == "uid-1"
    assert run["params"] == {"training.learningRate": "0.0002", "adapter.targetModules": "['q_proj']"}
    assert run["metrics"] == {("train/loss", 1): 11.0, ("train/loss", 2): 22.0, ("train/loss", 3): 23.0}
    assert run["status"] == "FINISHED"
    assert mlflow_server.authorization == {"Bearer secret"}


def test_mlflow_needs_an_address(tmp_path: Path) -> None:
    """The field is named."""
    with pytest.raises(ValueError, match=r"logging\.trackers: mlflow needs uri"):
        mlflow_run.connect(target("mlflow", tmp_path))


def test_wandb_needs_its_key(tmp_path: Path) -> None:
    """The key of the Secret is named."""
    with pytest.raises(ValueError, match="the Secret of wandb has no key WANDB_API_KEY"):
        wandb_run.connect(target("wandb", tmp_path))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of wandb itself
def test_wandb_writes_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through its own client, to files instead of a server."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "overwritten")
    (tmp_path / "WANDB_API_KEY").write_text("0" * 40)
    tracker = wandb_run.connect(target("wandb", tmp_path))
    for step in range(3):
        tracker.log(step, {"train/loss": float(step)})
    tracker.close()
    (run,) = (tmp_path / "wandb").glob("offline-run-*-uid-1")
    assert list(run.glob("run-uid-1.wandb"))

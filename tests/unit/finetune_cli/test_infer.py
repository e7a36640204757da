"""kubectl finetune infer and chat as a person types them, against a server of this process that answers by rule."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_api.contract.serve import Preset
from finetune_api.resolve import resolve
from finetune_cli import asking
from finetune_cli.__main__ import app
from finetune_cli.access import Access
from finetune_cli.asking import UnreachableError, whole_part
from finetune_cli.commands.infer import make_manner
from finetune_cli.errors import CliError
from finetune_cli.local import serving as local_serving
from finetune_cli.local.config import build_run_config
from finetune_cli.local.directory import LocalDirectory
from finetune_cli.servers import ClusterServer
from tests.unit.finetune_cli.builders import make_job

DONE: dict[str, Any] = {"artifacts": {"finalUri": "s3://b/demo/final"}, "outputUri": "s3://b/demo", "method": "sft"}
WORDS = "the final adapter of step 40 on s3://finetune/models/tiny"


class Rule(BaseHTTPRequestHandler):
    """Answers with what it was asked; it loads at first."""

    loading: list[str] = []
    asked: list[dict[str, Any]] = []
    prompts = [{"split": "train", "prompt": f"<s>question {number}", "expected": f"answer {number}"} for number in range(12)]

    def do_GET(self) -> None:
        if self.path == "/healthz":
            state = {"state": "Loading", "doing": self.loading.pop()} if self.loading else {"state": "Idle", "weights": WORDS}
            return self.answer(200, state)
        return self.answer(200, {"prompts": self.prompts})

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/v1/rows":
            if "prompt" not in document["row"]:
                return self.answer(400, {"error": {"message": "the row: there is no prompt"}})
            return self.answer(200, {"messages": [{"role": "user", "content": document["row"]["prompt"]}]})
        self.asked.append(document)
        if "prompt" in document:
            return self.answer(200, {"choices": [{"text": f"raw: {document['prompt']}", "finish_reason": "length"}]})
        said = f"{len(document['messages'])} messages, last: {document['messages'][-1]['content']}"
        return self.answer(200, {"choices": [{"message": {"content": said}, "finish_reason": "stop"}]})

    def answer(self, code: int, document: Any) -> None:
        body = json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class FakeCluster:
    """One job and one Dataset."""

    def __init__(self) -> None:
        self.job_now = make_job("Succeeded", **DONE)

    def job(self, _: object) -> Any:
        return self.job_now

    def datasets(self, _: str) -> list[dict[str, Any]]:
        samples = [
            '{"prompt": "whole?", "completion": "yes"}',
            '{"prompt": "cut off, yet whole?", "completion": "a long…',
            '{"prompt": "not wh…',
        ]
        return [{"metadata": {"name": "shop"}, "spec": {}, "status": {"samples": samples}}]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCluster]:
    """A cluster whose server is of this process; histories are below the test's directory."""
    found = FakeCluster()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rule)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    @contextmanager
    def reached(_: ClusterServer) -> Iterator[str]:
        yield f"http://127.0.0.1:{server.server_port}"

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(Access, "connect", lambda _: found)
    monkeypatch.setattr(Access, "namespace", lambda _: "team")
    monkeypatch.setattr("finetune_cli.job_runner.JobRunner.__init__", lambda *_: None)
    monkeypatch.setattr(ClusterServer, "__init__", lambda *_: None)
    monkeypatch.setattr(ClusterServer, "start", lambda _: True)
    monkeypatch.setattr(ClusterServer, "waits_for", lambda _: "")
    monkeypatch.setattr(ClusterServer, "reached", reached)
    monkeypatch.setattr(asking, "POLL_SECONDS", 0.0)
    monkeypatch.setattr(Rule, "asked", [])
    yield found
    server.shutdown()
    server.server_close()


def run(*words: str, typed: str | None = None) -> tuple[str, str]:
    """Answers, and what was said beside them; errors of the command are raised."""
    result = CliRunner().invoke(app, [*words, *(["--image", "trainer"] if "--stop" not in words else [])], input=typed)
    if isinstance(result.exception, CliError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout, result.stderr


def test_a_prompt_is_answered_and_kept(cluster: FakeCluster, tmp_path: Path) -> None:
    """V-01 V-04 V-07 V-08 V-09 P-13: loading first, then generating; only the answer is standard output; history exported, removed."""
    Rule.loading[:] = ["the weights into memory"]
    answer, said = run("infer", "demo", "--prompt", "why?")
    assert answer == "1 messages, last: why?\n"
    assert [line for line in said.splitlines() if line.startswith(("Loading", "Generating"))] == [
        "Loading the weights into memory",
        "Generating",
    ]
    assert WORDS in said
    assert "Loading" not in run("infer", "demo", "--prompt", "and now?")[1]
    assert (Rule.asked[0]["temperature"], Rule.asked[0]["repetition_penalty"], Rule.asked[0]["max_tokens"]) == (0, 1.1, 256)
    (kept,) = (tmp_path / "state").rglob("*.jsonl")
    assert kept.stat().st_mode & 0o777 == 0o600
    target = tmp_path / "chats.txt"
    run("infer", "demo", "--export", str(target))
    assert "> why?\n1 messages, last: why?\n" in target.read_text()
    assert "2 exchanges removed" in run("infer", "demo", "--clear-history")[1]
    with pytest.raises(CliError, match="no history to export"):
        run("infer", "demo", "--export", str(target))


def test_samples_of_the_data_are_shown_asked_and_drawn_again(cluster: FakeCluster) -> None:
    """V-03 V-04 V-10: five the training left, the same until others are drawn; what the data says; a hint before the first."""
    shown, said = run("infer", "demo")
    assert len(shown.splitlines()) == 5
    assert "No prompts yet" in said
    assert run("infer", "demo")[0] == shown
    answer, said = run("infer", "demo", "--sample", "2")
    asked = shown.splitlines()[1].partition("<s>")[2]
    assert answer == f"raw: <s>{asked}\n"
    assert f"the data says: answer {asked.split()[-1]}" in said
    assert "cut after 256 tokens" in said
    others = run("infer", "demo", "--resample")[0]
    assert not set(shown.split("\n")[:-1]) & set(others.split("\n")[:-1])
    with pytest.raises(CliError, match="--sample 6: there are 5 samples"):
        run("infer", "demo", "--sample", "6")


def test_no_others_are_made_up(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """V-03."""
    monkeypatch.setattr(Rule, "prompts", Rule.prompts[:5])
    with pytest.raises(CliError, match="left 5 prompts, and there are no others"):
        run("infer", "demo", "--resample")
    monkeypatch.setattr(Rule, "prompts", [])
    with pytest.raises(CliError, match="left no prompts"):
        run("infer", "demo")


def test_rows_of_a_dataset_are_samples(cluster: FakeCluster) -> None:
    """D-19 V-12: those whose prompt is whole in the status."""
    assert [line.split(maxsplit=1)[1] for line in run("infer", "demo", "--samples-from", "shop")[0].splitlines()] == [
        "whole?",
        "cut off, yet whole?",
    ]
    assert run("infer", "demo", "--samples-from", "shop", "--sample", "2")[0] == "1 messages, last: cut off, yet whole?\n"
    with pytest.raises(CliError, match="has no Dataset of this name; it has shop"):
        run("infer", "demo", "--samples-from", "none")
    with pytest.raises(CliError, match="shows the same samples"):
        run("infer", "demo", "--samples-from", "shop", "--resample")


def test_a_talk_knows_what_was_said(cluster: FakeCluster, tmp_path: Path) -> None:
    """V-10 V-12: line by line; earlier exchanges are shown; a mistake does not end it."""
    run("infer", "demo", "--prompt", "before")
    target = tmp_path / "talk.txt"
    typed = f"one\ntwo\n/sample 9\n/nonsense\n/sample 1\n/export {target}\n/clear\nthree\n/exit\nnever asked\n"
    answers, said = run("chat", "demo", typed=typed)
    assert [line for line in answers.splitlines() if "messages" in line] == [
        "1 messages, last: one",
        "3 messages, last: two",
        "1 messages, last: three",
    ]
    assert "before" in said
    assert "error: --sample 9: there are 5 samples" in said
    assert "/resample" in said
    assert len([line for line in target.read_text().splitlines() if line.startswith("> ")]) == 4
    assert "never asked" not in target.read_text()


def test_how_answers_are_drawn() -> None:
    """V-02 V-05 V-06 V-11: presets, and options before them."""
    drawn = {preset: make_manner(preset, None, None, 256, 1.1).sampling for preset in Preset}
    assert [drawn[preset].temperature for preset in (Preset.DETERMINISTIC, Preset.BALANCED, Preset.CREATIVE)] == [0, 0.7, 1]
    changed = make_manner(Preset.BALANCED, 0.2, None, 16, 1.3)
    assert (changed.sampling.temperature, changed.sampling.top_p, changed.max_new_tokens, changed.repetition_penalty) == (0.2, 0.9, 16, 1.3)


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ('{"a": 1, "b": "x"}', {"a": 1, "b": "x"}),
        ('{"a": "q, \\"r\\"", "b": "cut…', {"a": 'q, "r"'}),
        ('{"messages": [{"role": "user", "content": "why?"}, {"role": "assist…', {"messages": [{"role": "user", "content": "why?"}]}),
        ('{"a…', {}),
    ],
)
def test_the_whole_part_of_a_cut_row(text: str, fields: Any) -> None:
    """D-19: no half of a prompt is taken for a whole one."""
    assert whole_part(text) == fields


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["infer"], "name a job, or the directory of a local run with --dir"),
        (["infer", "demo", "--prompt", "a", "--sample", "1"], "two questions"),
        (["infer", "demo", "--raw"], "there is none"),
    ],
)
def test_commands_that_ask_nothing_are_refused(cluster: FakeCluster, words: list[str], said: str) -> None:
    """V-04."""
    with pytest.raises(CliError, match=said):
        run(*words)


def test_a_job_without_a_result_is_refused_before_anything_starts(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """V-01."""
    cluster.job_now = make_job("Training")
    monkeypatch.setattr(ClusterServer, "start", lambda _: pytest.fail("nothing may be started"))
    with pytest.raises(CliError, match="has no result to ask; its phase is Training"):
        run("infer", "demo", "--prompt", "why?")


def test_a_server_that_went_away_is_said() -> None:
    """V-07: idle, evicted, deleted; the same command starts another."""
    with pytest.raises(UnreachableError) as caught:
        asking.health_of("http://127.0.0.1:9")
    assert "starts it again" in caught.value.advice


def test_a_local_run_is_asked_only_with_a_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """V-01: no run, no result, a server that ends at once."""
    with pytest.raises(CliError, match="holds no run"):
        run("infer", "--dir", str(tmp_path))
    place = LocalDirectory(tmp_path)
    spec = resolve({"model": {"uri": "pvc://models/tiny"}, "dataset": {"uri": "pvc://data/rows"}, "resources": {"device": "cpu"}}).spec
    place.write_config(build_run_config("demo", spec, place, run=1, master_port=29500))
    place.store.mkdir()
    with pytest.raises(CliError, match="has no result to ask"):
        run("infer", "--dir", str(tmp_path), "--prompt", "why?")
    monkeypatch.setattr(local_serving, "find_trainer", lambda: "false")
    with pytest.raises(CliError, match="the server ended: it ended with code 1") as caught:
        run("infer", "--dir", str(tmp_path), "--checkpoint", "20", "--prompt", "why?")
    assert str(tmp_path / "servers/final-20-cpu/log") in caught.value.advice
    assert "no server of the run in" in run("infer", "--dir", str(tmp_path), "--stop")[1]

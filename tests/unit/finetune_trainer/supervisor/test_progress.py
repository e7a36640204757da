"""The reporter: what it posts, and that nothing at the other end hurts."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune_api.contract.progress import Command, FineTuneProgress, Stopped
from finetune_api.contract.run_config import ProgressConfig
from finetune_trainer.supervisor.board import Board
from finetune_trainer.supervisor.progress import Reporter, kubeflow_status
from tests.support.certificates import make_certificate
from tests.support.progress_server import ProgressServer, running_progress_server
from tests.support.waiting import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Harness:
    """A reporter with everything it talks to."""

    def __init__(self, url: str, directory: Path) -> None:
        self.board = Board(run=1)
        self.commands: list[Command] = []
        self.superseded: list[str] = []
        self.token, self.ca = directory / "token", directory / "ca.crt"
        self.token.write_text("first\n")
        config = ProgressConfig(url=url, interval_seconds=0.05)
        self.reporter = Reporter(
            config, self.board, token=self.token, ca=self.ca, on_command=self.commands.append, on_superseded=self.superseded.append
        )


@pytest.fixture
def server() -> Iterator[ProgressServer]:
    with running_progress_server() as made:
        yield made


@pytest.fixture
def harness(server: ProgressServer, tmp_path: Path) -> Iterator[Harness]:
    made = Harness(server.url, tmp_path)
    made.reporter.start()
    yield made
    made.reporter.close()


def test_token_is_read_anew_for_each_post(server: ProgressServer, harness: Harness) -> None:
    """Projected tokens rotate."""
    eventually(lambda: "Bearer first" in server.tokens, what="first token")
    harness.token.write_text("second")
    eventually(lambda: "Bearer second" in server.tokens, what="second token")


def test_each_command_is_handed_on_once(server: ProgressServer, harness: Harness) -> None:
    server.command("checkpoint", "one")
    eventually(lambda: len(harness.commands) == 1, what="command one")
    server.command("checkpoint", "two")
    eventually(lambda: len(harness.commands) == 2, what="command two")
    count = len(server.posts)
    eventually(lambda: len(server.posts) > count + 3, what="more posts")
    assert [command.id for command in harness.commands] == ["one", "two"]


def test_stopped_counts_as_delivered_only_with_200(server: ProgressServer, harness: Harness) -> None:
    server.status = 503
    harness.board.update(stopped=Stopped(command_id="p", step=3, saved=True))
    eventually(lambda: server.last.get("stopped"), what="a post with stopped")
    assert not harness.reporter.stopped_accepted.is_set()
    server.status = 200
    assert harness.reporter.stopped_accepted.wait(60)


def test_conflict_is_told_other_refusals_are_not(server: ProgressServer, harness: Harness) -> None:
    for status in (401, 404, 413, 500):
        server.status = status
        count = len(server.posts)
        eventually(lambda seen=count: len(server.posts) > seen + 1, what="posts go on")  # type: ignore[misc]
    assert harness.superseded == []
    server.status = 409
    eventually(lambda: harness.superseded, what="superseded")


def test_nobody_there_and_no_token_are_no_failure(tmp_path: Path) -> None:
    harness = Harness("http://127.0.0.1:9/progress", tmp_path)
    harness.token.unlink()
    harness.reporter.start()
    harness.reporter.close()
    assert not harness.reporter._thread.is_alive()


def test_a_rotated_ca_is_trusted_without_a_restart(server: ProgressServer, tmp_path: Path) -> None:
    """Design §4: the CA is a file; rotation publishes a new one and running jobs go on reporting."""
    old, _ = make_certificate(tmp_path, "old")
    certificate, key = make_certificate(tmp_path, "new")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    harness = Harness(server.url.replace("http:", "https:"), tmp_path)
    harness.ca.write_text(old.read_text())
    harness.reporter.start()
    eventually(lambda: harness.reporter._last_problem, what="the old CA does not do")
    assert server.posts == []
    harness.ca.write_text(old.read_text() + certificate.read_text())
    eventually(lambda: server.posts, what="a post with the new CA")
    harness.reporter.close()


def test_the_stock_part_of_a_post() -> None:
    """Wire-compatible with Kubeflow Trainer: percentage, remaining seconds, metrics as strings."""
    progress = FineTuneProgress(
        contract_version=1, run=1, attempt=1, phase="Training", step=25, total_steps=100, loss=0.5, learning_rate=1e-4, step_seconds=2.0
    )
    status = kubeflow_status(progress, now=NOW)
    assert status.last_updated_time == "2026-01-01T00:00:00Z"
    assert status.progress_percentage == 25
    assert status.estimated_remaining_seconds == 150
    assert {metric.name: metric.value for metric in status.metrics} == {"loss": "0.5", "learning_rate": "0.0001", "epoch": "0.0"}

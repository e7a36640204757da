"""kubectl finetune logs: of pods that are there through kubectl, of ended attempts from the archive."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path

import pytest

from finetune_api.contract.store import log_key, parse_log_key
from finetune_cli.access import Access
from finetune_cli.commands import look
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.store import DirectoryStore
from tests.unit.finetune_cli.builders import make_job
from tests.unit.finetune_cli.test_commands import FakeCluster, run

ATTEMPTS = [{"run": number, "attempt": number, "reason": "Created", "startedAt": "2026-11-01T12:00:00Z"} for number in (1, 2)]
LIVE = [
    json.dumps({"level": "info", "message": "step 1", "run": 2, "rank": 0}),
    json.dumps({"level": "info", "message": "step 1 too", "run": 2, "rank": 10}),
    json.dumps({"level": "error", "message": "store away", "exception": "Traceback"}),
    "printed by a program",
    "5",
]


class ClusterWithPods(FakeCluster):
    access = Access(context="lab")


def job(*, replicas: int) -> Job:
    return make_job(replicas=replicas, run=2, selector="finetune.dev/job=demo,finetune.dev/component=trainer", attempts=ATTEMPTS)


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store with the logs of two attempts, the second one of two pods."""
    for attempt, pod, text in ((1, 0, "[rank 0] first\n"), (2, 0, "[supervisor] begins\n[rank 0] second\n"), (2, 1, "[rank 1] of pod 1\n")):
        file = tmp_path / log_key(attempt, pod)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.setattr(look, "job_store", lambda _job, _cluster: nullcontext(DirectoryStore(tmp_path)))
    return tmp_path


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that prints the lines of pods; what it was asked is in the file."""
    seen, lines, program = tmp_path / "arguments", tmp_path / "lines", tmp_path / "kubectl"
    lines.write_text("\n".join(LIVE) + "\n")
    program.write_text(f'#!/bin/sh\necho "$@" > {seen}\ncat {lines}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return seen


def test_pods_that_are_there_are_read(monkeypatch: pytest.MonkeyPatch, kubectl: Path) -> None:
    """T-05, T-06: the pods of this run alone, whole, each line with who said it."""
    code, output = run(monkeypatch, ClusterWithPods(job(replicas=2)), "logs", "demo", "--follow")
    assert code == 0
    assert output.splitlines() == [
        "[rank 0] step 1", "[rank 10] step 1 too", "[supervisor] store away", "Traceback", "printed by a program", "5",
    ]  # fmt: skip
    asked = kubectl.read_text().split()
    assert asked[:5] == ["--context", "lab", "logs", "--namespace", "team"]
    selector = "finetune.dev/job=demo,finetune.dev/component=trainer,finetune.dev/run=2"
    assert {f"--selector={selector}", "--container=trainer", "--tail=-1", "--follow"} <= set(asked)


def test_one_rank_of_the_present_attempt(monkeypatch: pytest.MonkeyPatch, kubectl: Path) -> None:
    """Rank 1 is not rank 10; without --follow nothing is waited for."""
    cluster = ClusterWithPods(job(replicas=2))
    assert run(monkeypatch, cluster, "logs", "demo", "--attempt", "2", "--rank", "10") == (0, "[rank 10] step 1 too\n")
    assert "--follow" not in kubectl.read_text()
    assert run(monkeypatch, cluster, "logs", "demo", "--rank", "1") == (0, "")


def test_what_kubectl_cannot_read_is_said(monkeypatch: pytest.MonkeyPatch, kubectl: Path) -> None:
    (kubectl.parent / "kubectl").write_text('#!/bin/sh\necho "container is waiting to start" >&2\nexit 1\n')
    with pytest.raises(CliError, match="the logs of finetunejob/demo in namespace team cannot be read: container is waiting to start"):
        run(monkeypatch, ClusterWithPods(job(replicas=1)), "logs", "demo")


@pytest.mark.usefixtures("archive")
def test_ended_attempts_come_from_the_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    """T-05: the last attempt by itself, pod after pod; any other by its number, also beside pods that are there."""
    rested = ClusterWithPods(job(replicas=0))
    assert run(monkeypatch, rested, "logs", "demo")[1].splitlines() == ["[supervisor] begins", "[rank 0] second", "[rank 1] of pod 1"]
    assert run(monkeypatch, rested, "logs", "demo", "--rank", "1") == (0, "[rank 1] of pod 1\n")
    assert run(monkeypatch, ClusterWithPods(job(replicas=2)), "logs", "demo", "--attempt", "1") == (0, "[rank 0] first\n")
    with pytest.raises(CliError, match=r"has no log of attempt 7; it has attempts 1, 2"):
        run(monkeypatch, rested, "logs", "demo", "--attempt", "7")
    with pytest.raises(CliError, match="has no pods of this attempt to follow"):
        run(monkeypatch, rested, "logs", "demo", "--follow")


def test_a_store_without_logs_is_said(monkeypatch: pytest.MonkeyPatch, archive: Path) -> None:
    for path in archive.rglob("*.log"):
        path.rename(path.with_suffix(".txt"))
    with pytest.raises(CliError, match=r"has no log; it has none") as none:
        run(monkeypatch, ClusterWithPods(job(replicas=0)), "logs", "demo")
    assert "archived with each checkpoint" in none.value.advice


@pytest.mark.usefixtures("archive")
def test_logs_go_into_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """T-08."""
    target = tmp_path / "demo.log"
    assert run(monkeypatch, ClusterWithPods(job(replicas=0)), "logs", "demo", "--output", str(target)) == (0, "")
    assert target.read_text().splitlines() == ["[supervisor] begins", "[rank 0] second", "[rank 1] of pod 1"]


def test_keys_of_logs_are_read_as_they_are_written() -> None:
    assert parse_log_key(log_key(12, 3)) == (12, 3)
    assert parse_log_key("logs/attempt-1/pod-0.log.part") is None

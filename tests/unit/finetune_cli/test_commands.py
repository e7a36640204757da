"""The commands as a person types them, against a cluster that is a list of observations."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_cli import __main__ as command_line
from finetune_cli.access import Access
from finetune_cli.commands import act
from finetune_cli.errors import CliError, JobGoneError
from finetune_cli.job import Job, JobRef
from tests.unit.finetune_cli.builders import make_checkpoint, make_document, make_job, make_progress


class FakeCluster:
    """Shows one observation after the other; keeps the patches."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = list(jobs)
        self.patches: list[Any] = []
        self.created: list[Any] = []

    def job(self, ref: JobRef) -> Job:
        if ref != JobRef("demo", "team"):
            raise JobGoneError(f"reading {ref}: not found")
        return self.jobs[0]

    def follow(self, _: JobRef) -> Iterator[Job]:
        return iter(self.jobs)

    def create(self, manifest: Any) -> Job:
        self.created.append(manifest)
        return self.jobs[0]

    def patch(self, _: JobRef, patch: Any) -> Job:
        self.patches.append(patch)
        return self.jobs[0]


def run(monkeypatch: pytest.MonkeyPatch, cluster: FakeCluster, *words: str) -> tuple[int, str]:
    """Exit code and output of ``kubectl finetune <words>``; errors of the command are raised."""
    monkeypatch.setattr(Access, "connect", lambda _: cluster)
    monkeypatch.setattr(Access, "namespace", lambda _: "team")
    result = CliRunner().invoke(command_line.app, words)
    if isinstance(result.exception, CliError):
        raise result.exception
    return result.exit_code, result.output


def test_watch_ends_with_a_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    done = make_job("Succeeded", progress=make_progress(120, loss=1.5), artifacts={"finalUri": "s3://finetune/demo/final"}, attemptCount=2)
    code, output = run(monkeypatch, FakeCluster(make_job("Training", progress=make_progress(1)), done), "watch", "demo")
    assert code == 0
    assert "Succeeded after 120 steps, loss 1.5000, attempts 2, steps trained again 0" in output
    assert "s3://finetune/demo/final" in output


def test_watch_of_a_job_that_fails_ends_with_1_and_the_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = make_job("Failed", failure={"class": "DataError", "message": "no such column", "advice": "Mend it."})
    code, output = run(monkeypatch, FakeCluster(failed), "watch", "demo", "-n", "team")
    assert code == 1
    assert "no such column\nMend it." in output


def test_describe_shows_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    code, output = run(monkeypatch, FakeCluster(make_job("Training", progress=make_progress(40))), "describe", "demo")
    assert code == 0
    assert "kubectl finetune watch demo -n team" in output


def test_pause_follows_until_the_checkpoint_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(
        make_job("Training"), make_job("Pausing"), make_job("Paused", checkpoints={"latest": make_checkpoint(40, trigger="pause")})
    )
    code, output = run(monkeypatch, cluster, "pause", "demo")
    assert (code, cluster.patches) == (0, [{"spec": {"suspend": True}}])
    assert "checkpoint of step 40 complete (pause, 3.1 MB)" in output


def test_no_wait_only_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(make_job("Training"))
    assert run(monkeypatch, cluster, "stop", "demo", "--no-wait") == (0, "")
    assert cluster.patches == [{"spec": {"desiredState": "Stopped"}}]


def test_cancel_asks_first(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(make_job("Training"), make_job("Cancelled"))
    monkeypatch.setattr("typer.confirm", lambda question, abort: (_ for _ in ()).throw(SystemExit(1)))
    assert run(monkeypatch, cluster, "cancel", "demo")[0] == 1
    assert cluster.patches == []
    assert run(monkeypatch, cluster, "cancel", "demo", "--yes")[0] == 0
    assert cluster.patches == [{"spec": {"desiredState": "Cancelled"}}]


def test_each_request_has_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster(make_job("Training"))
    for _ in range(2):
        run(monkeypatch, cluster, "checkpoint", "demo", "--no-wait")
    tokens = [patch["metadata"]["annotations"]["finetune.dev/request"] for patch in cluster.patches]
    assert all(token.startswith("checkpoint/") for token in tokens)
    assert len(set(tokens)) == 2


def test_export_follows_until_the_outputs_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """W-04: and lists them."""
    monkeypatch.setattr(act, "new_token", lambda: "t1")
    gguf = {"type": "gguf", "name": "Q8_0", "uri": "s3://finetune/demo/final/gguf/demo-Q8_0.gguf", "sizeBytes": 2_000_000}
    left = {"finalUri": "s3://finetune/demo/final", "kind": "lora"}
    cluster = FakeCluster(
        make_job("Succeeded", artifacts=left),
        make_job("Succeeded", artifacts=left, lastHandledRequest="retry/t1", export={"serial": 1, "state": "Open"}),
        make_job("Succeeded", artifacts={**left, "outputs": [gguf]}, lastHandledRequest="retry/t1", export={"serial": 1, "state": "Done"}),
    )
    code, output = run(monkeypatch, cluster, "export", "demo", "--format", "gguf")
    request = {"metadata": {"annotations": {"finetune.dev/request": "retry/t1"}}}
    assert (code, cluster.patches) == (0, [{"spec": {"output": {"export": {"gguf": {"enabled": True}}}}, **request}])
    assert "Q8_0" in output
    assert run(monkeypatch, FakeCluster(cluster.jobs[0]), "export", "demo", "--format", "gguf", "--no-wait") == (0, "")


def test_curve_of_a_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    rows = [{"attempt": 1, "step": step, "loss": 6.0 / step} for step in range(1, 21)]
    (tmp_path / "metrics/attempt-1.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    code, output = run(monkeypatch, FakeCluster(), "curve", "--uri", tmp_path.as_uri())
    assert code == 0
    assert "loss 4.5000 → 0.3079 over 20 recorded steps" in output


def test_curve_needs_a_name_or_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CliError, match="name a job, or a store with --uri"):
        run(monkeypatch, FakeCluster(), "curve")
    with pytest.raises(CliError, match="ftp://x is no store"):
        run(monkeypatch, FakeCluster(), "curve", "--uri", "ftp://x")


def test_errors_are_sentences_on_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Access, "connect", lambda _: FakeCluster(make_job()))
    monkeypatch.setattr("sys.argv", ["kubectl-finetune", "describe", "other", "-n", "team"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: reading finetunejob/other in namespace team: not found\n"


def test_a_status_of_a_newer_operator_is_no_traceback() -> None:
    with pytest.raises(CliError, match="cannot be read") as unreadable:
        Job.of(make_document("Teleporting"))
    assert "Update kubectl-finetune" in unreadable.value.advice


def test_evaluate_compares_checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    """S-09: one job for each, the losses side by side."""
    ledger = {"latest": make_checkpoint(40), "recent": [make_checkpoint(20, evalLoss=4.5), make_checkpoint(40)]}
    done = make_job("Succeeded", spec={"dataset": {"uri": "hf://a/b", "evalRatio": 0.1}}, checkpoints=ledger, artifacts={"evalLoss": 4.25})
    cluster = FakeCluster(done)
    code, output = run(monkeypatch, cluster, "evaluate", "demo")
    assert code == 0
    assert [manifest["spec"]["training"]["maxSteps"] for manifest in cluster.created] == [20, 40]
    assert [line.split()[:3] for line in output.splitlines() if line.startswith("checkpoint-")] == [
        ["checkpoint-20", "4.25", "4.5"],
        ["checkpoint-40", "4.25", "demo"],
    ]


def test_evaluate_says_which_evaluation_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = make_job("Failed", spec={"dataset": {"uri": "hf://a/b", "evalUri": "hf://a/c"}}, checkpoints={"latest": make_checkpoint(40)})
    with pytest.raises(CliError, match="finetunejob/demo in namespace team is Failed"):
        run(monkeypatch, FakeCluster(failed), "evaluate", "demo", "--checkpoint", "40")


def test_every_verb_that_advice_and_guides_name_exists() -> None:
    """Z-03: what a message tells people to type is there."""
    of_functions = {command.__name__.replace("_", "-") for commands in command_line.PANELS.values() for command in commands}
    verbs = of_functions | {str(group.name) for group in command_line.app.registered_groups}
    root = Path(__file__).parents[3]
    files = [
        file for folder in ("crds/src", "operator/src", "trainer-image/src", "cli/src", "docs") for file in (root / folder).rglob("*.*")
    ]
    texts = [file.read_text(encoding="utf-8") for file in files if file.suffix in (".py", ".md")]
    named = {verb for text in texts for verb in re.findall(r"kubectl finetune ([a-z][a-z-]*)", text)} - {"of"}
    assert named - verbs == set()
    assert {"retry", "resume", "run-local", "dataset"} <= named

"""Nothing may hang unseen, and nothing that works may be taken for a hang."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.run_config import JobIdentity
from finetune_api.resolve import resolve
from finetune_trainer.store.ledger import read_ledger
from finetune_trainer.supervisor import stall as stall_module
from finetune_trainer.supervisor.board import Board
from finetune_trainer.supervisor.metrics import BoardCollector
from finetune_trainer.supervisor.stall import ABSENCE_SECONDS, COMPUTE_FREE_SECONDS, StallGuard, StallWatch, own_stacks, written_mebibytes
from tests.support.jobs import merge
from tests.support.pods import SPEC, Cluster
from tests.support.progress_server import ProgressServer
from tests.support.waiting import eventually

SOON = {"TEST_STALL_SECONDS": "3"}
SLOW = {"FAKE_STEPS": "4000", "FAKE_STEP_SECONDS": "0.05"}


def looked(watch: StallWatch, start: float, end: float) -> list[tuple[int | None, str]]:
    """Look every ten seconds, as a supervisor that is well does; returns what the last look finds."""
    found: list[tuple[int | None, str]] = []
    moment = start
    while moment <= end:
        found = [(stall.rank, stall.phase) for stall in watch.stalled(moment)]
        moment += 10
    return found


def test_a_counter_that_stands_still_is_a_stall() -> None:
    """Issue 4: stalled = no counter moved for its phase's limit."""
    watch = StallWatch(900)
    watch.note(0, "Training", 5, 0)
    assert looked(watch, 0, 900) == []
    assert looked(watch, 910, 910) == [(0, "Training")]
    assert watch.note(0, "Training", 6, 911)
    assert looked(watch, 920, 920) == []


def test_the_same_sign_again_is_no_headway() -> None:
    watch = StallWatch(100)
    watch.note(0, "Training", 5, 0)
    assert not watch.note(0, "Training", 5, 90)
    assert looked(watch, 90, 110) == [(0, "Training")]


@pytest.mark.parametrize("phase", ["Starting", "Preparing", "Loading", "Saving", "Uploading", "Exporting"])
def test_phases_without_computation_have_limits_of_their_own(phase: str) -> None:
    watch = StallWatch(60)
    assert watch.limit(phase) == COMPUTE_FREE_SECONDS  # type: ignore[arg-type]
    assert StallWatch(7200).limit(phase) == 7200  # type: ignore[arg-type]


@pytest.mark.parametrize("phase", ["Holding", "Finished"])
def test_waiting_is_no_stall(phase: str) -> None:
    watch = StallWatch(10)
    watch.note(None, phase, 0, 0)  # type: ignore[arg-type]
    assert looked(watch, 0, 100_000) == []


@pytest.mark.parametrize("phase", ["Training", "Evaluating", "Generating"])
def test_phases_that_compute_have_the_policys_limit(phase: str) -> None:
    """Issue 4: an evaluation or a generation that counts on is no stall, however long it takes; one that stands still is."""
    watch = StallWatch(100)
    for count in range(50):
        watch.note(0, phase, count, 90.0 * count)  # type: ignore[arg-type]
        assert looked(watch, 90.0 * count, 90.0 * (count + 1)) == []
    assert looked(watch, 90.0 * 50, 90.0 * 49 + 120) == [(0, phase)]


def test_the_metric_shows_a_stall_and_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """``finetune_train_stalled`` is 0, 1 while a rank hangs in its evaluation, 0 again."""
    now = [0.0]
    monkeypatch.setattr(stall_module, "time", SimpleNamespace(monotonic=lambda: now[0], time=lambda: now[0]))
    board = Board(run=1)
    guard = StallGuard(resolve(merge(SPEC, {"retry": {"stallSeconds": 60, "onStall": "report"}})).spec.retry, board)
    guard.heard(1, "Evaluating", 1)
    seen = []
    for moment, counter in [(0, 1), (20, 1), (40, 1), (61, 1), (80, 2)]:
        now[0] = moment
        guard.heard(1, "Evaluating", counter)
        guard.look()
        seen.append(scraped(board, "finetune_train_stalled"))
    assert seen == [0, 0, 0, 1, 0]


def scraped(board: Board, name: str) -> float:
    """Value of a metric, as the pod's endpoint shows it."""
    families = BoardCollector(board, JobIdentity(name="job", namespace="team", uid="uid-1")).collect()
    (value,) = [sample.value for family in families for sample in family.samples if sample.name == name]
    return float(value)


def test_a_change_of_phase_is_headway() -> None:
    watch = StallWatch(100)
    watch.note(1, "Training", 5, 0)
    watch.note(1, "Evaluating", 0, 90)
    assert looked(watch, 90, 180) == []


def test_a_supervisor_that_was_frozen_blames_nobody() -> None:
    """A container that was stopped as a whole wakes with old signs: it waits for new ones."""
    watch = StallWatch(100)
    watch.note(0, "Training", 5, 0)
    watch.stalled(10)
    assert watch.stalled(10 + ABSENCE_SECONDS + 5000) == []


def test_ended_processes_cannot_stall() -> None:
    watch = StallWatch(100)
    watch.note(0, "Training", 5, 0)
    watch.note(1, "Training", 5, 0)
    watch.forget(0)
    assert looked(watch, 0, 200) == [(1, "Training")]


def test_downloads_are_seen_as_bytes_written(tmp_path: Path) -> None:
    before = written_mebibytes()
    (tmp_path / "file").write_bytes(b"x" * 4 * 2**20)
    assert written_mebibytes() - before >= 3


def test_own_stacks_name_the_functions() -> None:
    assert "test_own_stacks_name_the_functions" in own_stacks()


def test_a_hanging_rank_shows_its_stack_and_the_run_is_given_up(cluster: Cluster, operator: ProgressServer) -> None:
    """Class Stalled, counted as a restart; both ranks' stacks are in the archived log, the hanging one's in the message."""
    cluster.processes = 2
    (pod,) = cluster.start_run(FAKE_HANG="1:7", **SOON, **SLOW)
    assert pod.wait(90) == 1, pod.output()
    message = pod.message
    assert message.failure_class == FailureClass.STALLED
    assert "no headway" in message.message
    log = cluster.store.get("logs/attempt-1/pod-0.log").decode()
    assert "in hang" in log
    assert log.count("most recent call first") >= 2
    assert read_ledger(cluster.store).checkpoints[-1].step == 5
    stalled = [post["finetune"]["warnings"].get("TrainingStalled") for post in operator.posts]
    assert any(stalled)


def test_a_stall_that_is_only_reported_ends_when_it_ends(cluster: Cluster, operator: ProgressServer) -> None:
    """``retry.onStall: report``: condition and stacks, nothing is killed; the condition goes with the stall."""
    (pod,) = cluster.start_run({"retry": {"onStall": "report"}}, **SOON, **SLOW)
    operator.wait_for_step(3)
    (worker,) = [pid for pid in pod.children() if b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    step = operator.last["step"]
    os.kill(worker, signal.SIGSTOP)
    eventually(lambda: "TrainingStalled" in operator.last["warnings"], what="the condition")
    os.kill(worker, signal.SIGCONT)
    eventually(lambda: "TrainingStalled" not in operator.last["warnings"], what="the end of the condition")
    operator.wait_for_step(step + 3)
    pod.signal()
    assert pod.wait() == 75, pod.output()
    assert "most recent call first" in cluster.store.get("logs/attempt-1/pod-0.log").decode()

"""One pod, from start to end: a real supervisor, a real store, a fake worker."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from finetune_api.contract import env
from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import AttemptRecord, CheckpointRef
from finetune_trainer.store.ledger import manifest_key, read_ledger
from tests.support.jobs import merge
from tests.support.pods import Cluster
from tests.support.progress_server import ProgressServer
from tests.support.waiting import eventually

SLOW = {"FAKE_STEPS": "400", "FAKE_STEP_SECONDS": "0.05"}


@pytest.mark.parametrize("kind", ["cluster", "s3_cluster"])
def test_trains_to_the_end(request: pytest.FixtureRequest, kind: str, operator: ProgressServer) -> None:
    """Design §5: exit 0 once the final commit exists; metrics, logs, samples and lineage lie beside it."""
    cluster: Cluster = request.getfixturevalue(kind)
    (pod,) = cluster.start_run()
    assert pod.wait() == 0, pod.output()
    ledger = read_ledger(cluster.store)
    assert [checkpoint.step for checkpoint in ledger.checkpoints] == [5, 10]
    keys = {info.key for info in cluster.store.list()}
    assert {
        "final/manifest.json",
        "final/adapter_model.safetensors",
        "lineage.json",
        "samples.json",
        "pinned.json",
        "attempts/1.json",
    } <= keys
    assert [json.loads(line)["step"] for line in cluster.store.get("metrics/attempt-1.jsonl").splitlines()] == list(range(1, 11))
    assert b"[rank 0] rank 0 begins at step 0" in cluster.store.get("logs/attempt-1/pod-0.log")
    assert operator.last["finished"]["finalUri"] == cluster.store.url("final")
    assert operator.tokens == {"Bearer the-token"}
    assert operator.posts[-1]["trainerStatus"]["progressPercentage"] == 100
    assert pod.message.final_uri == cluster.store.url("final")
    assert not [key for key in keys if key.startswith("probe/")]


@pytest.mark.parametrize("kind", ["cluster", "s3_cluster"])
def test_sigterm_saves_and_the_next_run_goes_on(request: pytest.FixtureRequest, kind: str, operator: ProgressServer) -> None:
    """Design §4: SIGTERM makes the same save without the acknowledgement; exit code 75."""
    cluster: Cluster = request.getfixturevalue(kind)
    (pod,) = cluster.start_run(**SLOW)
    operator.wait_for_step(7)
    pod.signal()
    assert pod.wait() == 75, pod.output()
    newest = read_ledger(cluster.store).checkpoints[-1]
    assert newest.manifest.trigger == "signal"
    assert newest.step == pod.message.step
    assert newest.step >= 7
    (again,) = cluster.start_run(FAKE_STEPS=str(newest.step + 3))
    assert again.wait() == 0, again.output()
    assert f"rank 0 begins at step {newest.step}" in again.output()
    record = AttemptRecord.model_validate_json(cluster.store.get("attempts/2.json"))
    assert record.parent == newest.ref
    assert read_ledger(cluster.store).checkpoints[-1].manifest.parent == newest.ref


def test_pause_is_acknowledged_and_held(cluster: Cluster, operator: ProgressServer) -> None:
    """Design §4: a pause posts ``stopped`` until it is accepted and holds the pod until it is released."""
    (pod,) = cluster.start_run(**SLOW)
    operator.wait_for_step(3)
    operator.command("pause", "pause-1")
    stopped = operator.wait_for("stopped")
    assert stopped["commandId"] == "pause-1"
    assert stopped["saved"]
    assert stopped["checkpoint"] == {"attempt": 1, "step": stopped["step"]}
    assert {"agree", "save", "upload"} == stopped["seconds"].keys()
    assert read_ledger(cluster.store).checkpoints[-1].manifest.trigger == "pause"
    assert operator.last["phase"] == "Holding"
    assert pod.process.poll() is None
    pod.signal()
    assert pod.wait() == 75


def test_release_ends_a_hold(cluster: Cluster, operator: ProgressServer) -> None:
    (pod,) = cluster.start_run(**SLOW)
    operator.wait_for_step(1)
    operator.command("stop", "stop-1")
    operator.wait_for("stopped")
    operator.command("release", "release-1")
    assert pod.wait() == 75


def test_a_hold_ends_with_its_timeout(cluster: Cluster, operator: ProgressServer) -> None:
    """Hold at most the timeout (but at least until the operator could read the answer), then exit 75."""
    (pod,) = cluster.start_run({"pausePolicy": {"timeoutSeconds": 10}}, **SLOW)
    operator.wait_for_step(1)
    operator.command("pause", "pause-1", timeoutSeconds=1)
    operator.wait_for("stopped")
    assert pod.process.poll() is None


def test_checkpoint_command_is_carried_out_and_acknowledged(cluster: Cluster, operator: ProgressServer) -> None:
    (pod,) = cluster.start_run({"checkpoint": {"steps": 1000}}, **SLOW)
    operator.wait_for_step(2)
    operator.command("checkpoint", "save-1")
    assert operator.wait_for("acknowledged") == ["save-1"]
    assert operator.last["checkpoints"][-1]["trigger"] == "command"
    pod.signal()
    assert pod.wait() == 75


def test_pause_before_the_workers_ran(cluster: Cluster, operator: ProgressServer, tmp_path: Path) -> None:
    """Design §5: before the first step there is nothing to save; the operator still gets its answer."""
    operator.command("pause", "pause-1")
    (pod,) = cluster.start_run(**SLOW)
    stopped = operator.wait_for("stopped")
    assert not stopped["saved"] or stopped["step"] <= 1
    assert stopped["lostSteps"] == 0
    pod.signal()
    assert pod.wait() == 75


def test_a_pause_as_the_ranks_leave_does_not_undo_the_end(cluster: Cluster, operator: ProgressServer, tmp_path: Path) -> None:
    """OP-09: a rank that has hung up after the last step is ending by itself; the job is finished, not paused without a checkpoint."""
    leave = tmp_path / "leave"
    (pod,) = cluster.start_run(FAKE_LINGER=str(leave))
    eventually(leave.with_suffix(".begun").exists, what="the rank has hung up")
    operator.command("pause", "pause-1")
    eventually(lambda: "command pause" in pod.output(), what="the pause has arrived")
    leave.touch()
    assert pod.wait() == 0, pod.output()
    assert operator.last["finished"]["step"] == 10


def test_sigkilled_worker_leaves_its_finished_saves(cluster: Cluster, operator: ProgressServer) -> None:
    """Design §5: a worker's death never ends an upload; the next run counts what was lost."""
    (pod,) = cluster.start_run(FAKE_STEPS="400", FAKE_EXIT=f"0:8:-{signal.SIGKILL.value}")
    assert pod.wait() == 1, pod.output()
    message = pod.message
    assert message.failure_class == FailureClass.UNKNOWN
    assert message.failed_rank == 0
    assert "SIGKILL" in message.message
    assert message.checkpoint == CheckpointRef(attempt=1, step=5)
    assert message.step == 7
    (again,) = cluster.start_run(FAKE_STEPS="9")
    assert again.wait() == 0
    assert "rank 0 begins at step 5" in again.output()
    assert operator.last["lostSteps"] == 2


def test_failed_worker_names_class_and_last_lines(cluster: Cluster) -> None:
    """Design §5: 42 for what a retry cannot help; the message has the rank's last lines."""
    (pod,) = cluster.start_run(FAKE_EXIT="0:3:42")
    assert pod.wait() == 42
    assert pod.message.failure_class == FailureClass.LOSS_DIVERGED
    assert pod.message.message == "the loss became NaN"
    assert "rank 0 begins at step 0" in pod.message.log_lines


def test_a_newer_attempt_stops_this_one(cluster: Cluster, operator: ProgressServer) -> None:
    """Design §5: attempts are re-checked before each commit; a superseded one exits 75 and commits nothing."""
    (pod,) = cluster.start_run({"checkpoint": {"steps": 1000}}, **SLOW)
    operator.wait_for_step(2)
    record = AttemptRecord.model_validate_json(cluster.store.get("attempts/1.json"))
    cluster.store.put("attempts/2.json", record.model_copy(update={"attempt": 2, "pod_uid": "other"}).to_json().encode())
    operator.command("checkpoint", "save-1")
    assert pod.wait() == 75, pod.output()
    assert "attempt 2 was claimed" in pod.message.message
    assert read_ledger(cluster.store).checkpoints == []


def test_the_operator_says_conflict(cluster: Cluster, operator: ProgressServer) -> None:
    """409: a newer attempt is known, stop and commit nothing."""
    (pod,) = cluster.start_run(**SLOW)
    operator.wait_for_step(2)
    operator.status = 409
    assert pod.wait() == 75


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
def test_the_operator_away_never_stops_training(cluster: Cluster, operator: ProgressServer, status: int) -> None:
    operator.status = status
    (pod,) = cluster.start_run()
    eventually(lambda: any(info.key == "final/manifest.json" for info in cluster.store.list("final/")), what="final result")
    operator.status = 200
    assert pod.wait() == 0


def test_truncated_newest_checkpoint_is_passed_over(cluster: Cluster, operator: ProgressServer) -> None:
    """Issue 3 no. 5: a truncated or corrupt newest checkpoint is refused and the one before is used, with a warning condition."""
    (pod,) = cluster.start_run(FAKE_STEPS="400", FAKE_EXIT="0:12:1")
    assert pod.wait() == 1
    cluster.store.put("a1/checkpoint-10/optimizer.pt", b"cut")
    (again,) = cluster.start_run(FAKE_STEPS="13")
    assert again.wait() == 0, again.output()
    assert "rank 0 begins at step 5" in again.output()
    assert "a1/checkpoint-10 is not used: optimizer.pt" in operator.last["warnings"]["CheckpointRejected"]


def test_corrupt_newest_checkpoint_is_found_by_its_digest(s3_cluster: Cluster, operator: ProgressServer) -> None:
    (pod,) = s3_cluster.start_run(FAKE_STEPS="400", FAKE_EXIT="0:12:1")
    assert pod.wait() == 1
    content = s3_cluster.store.get("a1/checkpoint-10/optimizer.pt")
    s3_cluster.store.put("a1/checkpoint-10/optimizer.pt", content[:-1] + b"y")
    (again,) = s3_cluster.start_run(FAKE_STEPS="13")
    assert again.wait() == 0, again.output()
    assert "rank 0 begins at step 5" in again.output()
    assert "sha256" in operator.last["warnings"]["CheckpointRejected"]


def test_a_wish_starts_a_new_branch_that_later_runs_stay_on(cluster: Cluster) -> None:
    """Issue 3 no. 5: a restart from an older checkpoint never resumes from the abandoned branch."""
    (pod,) = cluster.start_run({"checkpoint": {"keepLast": 10}}, FAKE_STEPS="400", FAKE_EXIT="0:18:1")
    assert pod.wait() == 1
    wish = {"checkpoint": {"resumeFrom": "checkpoint-5", "keepLast": 10}}
    (branch,) = cluster.start_run(wish, FAKE_STEPS="400", FAKE_EXIT="0:8:1")
    assert branch.wait() == 1
    assert "rank 0 begins at step 5" in branch.output()
    (last,) = cluster.start_run(wish, FAKE_STEPS="12")
    assert last.wait() == 0
    assert "rank 0 begins at step 5" in last.output()


def test_the_branch_itself_is_gone_on_with(cluster: Cluster) -> None:
    """R-06, R-07: trained to 20, sent back to 5, killed after 10: the next run begins at 10 of the branch, not at 20 or 15 before it."""
    keep = {"checkpoint": {"keepLast": 10}}
    (pod,) = cluster.start_run(keep, FAKE_STEPS="400", FAKE_EXIT="0:21:1")
    assert pod.wait() == 1
    wish = merge(keep, {"checkpoint": {"resumeFrom": "checkpoint-5"}})
    (branch,) = cluster.start_run(wish, FAKE_STEPS="400", FAKE_EXIT="0:12:-9")
    assert branch.wait() == 1
    found = [(checkpoint.attempt, checkpoint.step) for checkpoint in read_ledger(cluster.store).checkpoints]
    assert found == [(1, 5), (1, 10), (1, 15), (1, 20), (2, 10)]
    (last,) = cluster.start_run(wish, FAKE_STEPS="13")
    assert last.wait() == 0, last.output()
    assert "rank 0 begins at step 10" in last.output()
    assert read_ledger(cluster.store).checkpoints[-1].manifest.parent == CheckpointRef(attempt=2, step=10)


def test_two_live_attempts(cluster: Cluster) -> None:
    """R-07: an attempt that was frozen while the next one began wakes, notices, leaves with 75 and commits nothing any more."""
    (frozen,) = cluster.start_run(FAKE_STEPS="400", FAKE_STEP_SECONDS="0.2")
    eventually(lambda: read_ledger(cluster.store).checkpoints, what="a checkpoint of the first attempt")
    tree = [frozen.process.pid, *frozen.children()]
    for pid in tree:
        os.kill(pid, signal.SIGSTOP)
    before = {key for key in manifests(cluster) if key.startswith("a1/")}
    (second,) = cluster.start_run(**SLOW)
    eventually(lambda: any(key.startswith("a2/") for key in manifests(cluster)), what="a checkpoint of the second attempt")
    for pid in tree:
        os.kill(pid, signal.SIGCONT)
    assert frozen.wait() == 75, frozen.output()
    second.signal()
    assert second.wait() == 75, second.output()
    assert {key for key in manifests(cluster) if key.startswith("a1/")} <= before
    newest = read_ledger(cluster.store).checkpoints[-1]
    assert (newest.attempt, newest.step) == (2, second.message.step)


def manifests(cluster: Cluster) -> set[str]:
    """Keys of all manifests."""
    return {manifest_key(found.attempt, found.step) for found in read_ledger(cluster.store).checkpoints}


def test_the_checkpoint_of_a_pause_outlives_keep_last(cluster: Cluster, operator: ProgressServer) -> None:
    """R-05: it stays resumable, whichever attempt has saved more than keepLast since; others lose their optimizer."""
    few = {"checkpoint": {"keepLast": 1}}
    (paused,) = cluster.start_run(few, **SLOW)
    operator.wait_for_step(6)
    operator.command("pause", "pause-1")
    operator.wait_for("stopped")
    operator.commands = []
    paused.signal()
    assert paused.wait() == 75, paused.output()
    pause = read_ledger(cluster.store).checkpoints[-1]
    assert pause.manifest.trigger == "pause"
    (resumed,) = cluster.start_run(few, FAKE_STEPS="400", FAKE_EXIT=f"0:{pause.step + 11}:1")
    assert resumed.wait() == 1
    (last,) = cluster.start_run(few, FAKE_STEPS=str(pause.step + 30))
    assert last.wait() == 0, last.output()
    kept = {found.ref: found.manifest.resumable and not found.damage for found in read_ledger(cluster.store).checkpoints}
    assert kept[pause.ref]
    assert len([ref for ref in kept if kept[ref]]) == 3, "the pause's, the one the last run began at, the newest"


def test_incomplete_wish_is_refused_by_name(cluster: Cluster) -> None:
    """AC-08: refused as incomplete, the missing file named."""
    (pod,) = cluster.start_run(FAKE_STEPS="400", FAKE_EXIT="0:12:1")
    assert pod.wait() == 1
    cluster.store.delete(["a1/checkpoint-10/optimizer.pt"])
    (again,) = cluster.start_run({"checkpoint": {"resumeFrom": "checkpoint-10"}})
    assert again.wait() == 42
    assert again.message.failure_class == FailureClass.CHECKPOINT_INCOMPLETE
    assert "optimizer.pt is missing" in again.message.message


def test_other_library_versions_are_refused_by_name(cluster: Cluster, operator: ProgressServer) -> None:
    """Design §5: the first attempt freezes versions; later attempts use them or refuse by name."""
    (pod,) = cluster.start_run(**SLOW)
    operator.wait_for_step(5)
    pod.signal()
    assert pod.wait() == 75
    (again,) = cluster.start_run(FAKE_VERSION="2", **SLOW)
    assert again.wait() == 42
    assert again.message.failure_class == FailureClass.CONFIGURATION
    assert "the version of fake" in again.message.message
    (anew,) = cluster.start_run({"checkpoint": {"resumeFrom": "none"}}, FAKE_VERSION="2")
    assert anew.wait() == 0, anew.output()
    assert json.loads(cluster.store.get("pinned.json"))["versions"] == {"fake": "2"}


def test_rows_are_prepared_once(cluster: Cluster, operator: ProgressServer) -> None:
    """Design §5: rows are prepared once and kept in the store; a later attempt needs the source no more."""
    (pod,) = cluster.start_run(**SLOW)
    operator.wait_for_step(6)
    eventually(lambda: [info for info in cluster.store.list("prepared/") if info.key.endswith("manifest.json")], what="kept rows")
    pod.signal()
    assert pod.wait() == 75
    (cluster.directory / "configmap/data/train.jsonl").unlink()
    (again,) = cluster.start_run(FAKE_STEPS="1")
    assert again.wait() == 0, again.output()


def test_unreadable_row_ends_with_its_line(cluster: Cluster) -> None:
    (cluster.directory / "configmap/data/train.jsonl").write_text('{"text": "one"}\nbroken\n')
    (pod,) = cluster.start_run()
    assert pod.wait() == 42
    assert pod.message.failure_class == FailureClass.DATA
    assert "line 2" in pod.message.message


def test_missing_secret_is_named(s3_cluster: Cluster) -> None:
    for key in s3_cluster.secret_dir.iterdir():
        key.unlink()
    (pod,) = s3_cluster.start_run()
    assert pod.wait() == 42
    assert pod.message.failure_class == FailureClass.STORAGE_AUTH
    assert "Secret finetune-storage" in pod.message.message


def test_metrics_are_served(cluster: Cluster, operator: ProgressServer) -> None:
    """Issue 3 no. 9: loss, learning rate, step and checkpoint durations are there."""
    (pod,) = cluster.start_run(**SLOW)
    operator.wait_for("checkpoints")
    variables = Path(f"/proc/{pod.process.pid}/environ").read_text().split("\0")
    port = next(value.partition("=")[2] for value in variables if value.startswith(f"{env.ENV_METRICS_PORT}="))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    for name in (
        "finetune_train_loss",
        "finetune_train_learning_rate",
        "finetune_train_step",
        "finetune_checkpoint_upload_duration_seconds",
    ):
        assert f'{name}{{finetune_job="job",finetune_namespace="team"}}' in text
    pod.signal()
    assert pod.wait() == 75


def test_unreadable_run_config_is_a_configuration_error(cluster: Cluster) -> None:
    (pod,) = cluster.start_run(**SLOW)
    pod.kill()
    path = cluster.directory / "run-1.json"
    path.write_text(path.read_text().replace('"contractVersion":1', '"contractVersion":99', 1))
    cluster.run_number = 0
    (cluster.directory / "run-1-pod-0").rename(cluster.directory / "first")
    bad = cluster._start_pod(path, 0, 1, {})
    assert bad.wait() == 42

"""Processes killed, disks full, clocks that jump, keys that rotate: what is complete in the store stays, and the next run goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.run_config import StoreConfig
from finetune_trainer.store.ledger import read_ledger
from finetune_trainer.supervisor.logs import LogArchive
from tests.support.minio import MinioServer, minio_binary, running_minio
from tests.support.pods import Cluster, Pod
from tests.support.progress_server import ProgressServer
from tests.support.relay import Relay, running_relay
from tests.support.reliability import Fault
from tests.support.waiting import eventually

SLOW = {"FAKE_STEPS": "4000", "FAKE_STEP_SECONDS": "0.05"}


def workers(pod: Pod) -> dict[int, int]:
    """Rank -> process id."""
    found = {}
    for pid in pod.children():
        variables = dict(line.partition("=")[::2] for line in Path(f"/proc/{pid}/environ").read_text().split("\0"))
        if "RANK" in variables:
            found[int(variables["RANK"])] = pid
    return found


def test_sigkill_during_a_save(cluster: Cluster, operator: ProgressServer, fault: Fault) -> None:
    """A save that was being written is no checkpoint; the one before it is where the next run goes on."""
    (pod,) = cluster.start_run(FAKE_SAVE_SECONDS="0.5", **SLOW)
    operator.wait_for("checkpoints")
    eventually(lambda: operator.last["phase"] == "Saving" and operator.last["step"] >= 9, what="the second save")
    fault.strikes("SIGKILL of a worker during a save")
    os.kill(workers(pod)[0], signal.SIGKILL)
    assert pod.wait() == 1, pod.output()
    assert [checkpoint.step for checkpoint in read_ledger(cluster.store).checkpoints] == [5]
    (again,) = cluster.start_run(FAKE_STEPS="12")
    assert again.wait() == 0, again.output()
    assert "rank 0 begins at step 5" in again.output()
    assert operator.last["lostSteps"] >= 4
    fault.ends("resumed from the checkpoint before", operator.last["lostSteps"])


@pytest.mark.parametrize("rank", [0, 1])
def test_the_message_is_of_the_rank_that_failed_first(cluster: Cluster, rank: int) -> None:
    """Last lines of the rank that failed first, not of those that died of it (issue 4)."""
    cluster.processes = 2
    (pod,) = cluster.start_run(FAKE_STEPS="400", FAKE_EXIT=f"{rank}:3:1")
    assert pod.wait() == 1, pod.output()
    message = pod.message
    assert (message.failed_rank, message.failure_class) == (rank, FailureClass.UNKNOWN)
    assert f"rank {rank} fails" in message.log_lines
    assert "lost a peer" not in message.log_lines
    assert f"rank {1 - rank} lost a peer" in cluster.store.get("logs/attempt-1/pod-0.log").decode()


@pytest.mark.parametrize("rank", [0, 1])
def test_sigkill_of_a_rank_is_that_ranks_failure(cluster: Cluster, operator: ProgressServer, rank: int, fault: Fault) -> None:
    """SIGKILL of rank 0 and of another rank: the survivor's end is a consequence, not the cause."""
    cluster.processes = 2
    (pod,) = cluster.start_run(**SLOW)
    operator.wait_for("checkpoints")
    fault.strikes("SIGKILL of one of two ranks")
    os.kill(workers(pod)[rank], signal.SIGKILL)
    assert pod.wait() == 1, pod.output()
    assert pod.message.failed_rank == rank
    assert "SIGKILL" in pod.message.message
    assert "lost a peer" not in pod.message.log_lines
    fault.ends("both ended, blamed on the killed rank")


def test_the_rows_of_a_checkpoint_are_there_when_it_is(cluster: Cluster) -> None:
    """Killed the moment a checkpoint is complete: no later attempt trains its steps again, so their rows are in the store already."""
    (pod,) = cluster.start_run(TEST_HANG_AT_COMMIT="1", **SLOW)
    eventually(lambda: read_ledger(cluster.store).checkpoints, what="a complete checkpoint")
    pod.kill()
    (checkpoint,) = read_ledger(cluster.store).checkpoints
    rows = [json.loads(line) for line in cluster.store.get("metrics/attempt-1.jsonl").decode().splitlines()]
    assert {row["step"] for row in rows} >= set(range(1, checkpoint.step + 1))


def test_the_log_of_a_failed_attempt_is_kept_to_its_last_line(cluster: Cluster) -> None:
    """Logs of each attempt are archived, also of one that never made a checkpoint, with what the supervisor said."""
    (pod,) = cluster.start_run(FAKE_STEPS="400", FAKE_EXIT="0:2:1")
    assert pod.wait() == 1
    (again,) = cluster.start_run(FAKE_STEPS="2")
    assert again.wait() == 0
    first = cluster.store.get("logs/attempt-1/pod-0.log").decode()
    assert "[rank 0] rank 0 fails" in first
    assert "[supervisor]" in first
    assert "rank 0 ended with code 1" in first
    assert "rank 0 fails" not in cluster.store.get("logs/attempt-2/pod-0.log").decode()


def test_a_disk_that_is_full_costs_saves_not_the_run(cluster: Cluster, operator: ProgressServer, tmp_path: Path, fault: Fault) -> None:
    """ENOSPC while saves are put aside: skipped with a condition, training goes on; the next save after it is complete."""
    flag = tmp_path / "disk-full"
    flag.touch()
    fault.strikes("disk full (ENOSPC) while saves are put aside")
    (pod,) = cluster.start_run(TEST_DISK_FULL=str(flag), **SLOW)
    eventually(lambda: "No space left" in operator.last.get("warnings", {}).get("CheckpointSkipped", ""), what="the condition")
    step = operator.last["step"]
    operator.wait_for_step(step + 6)
    assert not operator.last["checkpoints"]
    flag.unlink()
    assert operator.wait_for("checkpoints")[-1]["step"] > step
    pod.signal()
    assert pod.wait() == 75, pod.output()
    fault.ends("saves skipped with a condition, training went on", 0)


def test_a_full_disk_never_blocks_who_prints() -> None:
    """The archive drops lines it cannot write: a reader that died would leave its worker waiting for ever."""
    archive = LogArchive(Path("/dev/full"))
    for number in range(10_000):
        archive.write(f"line {number}")
    archive.close()


def test_a_wall_clock_that_jumps_changes_nothing(cluster: Cluster, operator: ProgressServer, tmp_path: Path, fault: Fault) -> None:
    """Deadlines, stalls and usage go by monotonic clocks; only what people read as a time of day moves."""
    jump = tmp_path / "jump"
    jump.write_text("0")
    (pod,) = cluster.start_run({"retry": {"stallSeconds": 10}}, TEST_CLOCK_JUMP=str(jump), **SLOW)
    operator.wait_for("checkpoints")
    fault.strikes("wall clock jumps two days back and forth", times=2)
    for hours in (-48, 48):
        jump.write_text(str(hours * 3600))
        operator.wait_for_step(operator.last["step"] + 12)
    operator.command("pause", "pause-1")
    stopped = operator.wait_for("stopped")
    assert stopped["saved"]
    assert all(0 <= seconds < 60 for seconds in stopped["seconds"].values())
    assert 0 < sum(operator.last["usage"].values()) < 120
    assert "TrainingStalled" not in operator.last["warnings"]
    pod.signal()
    assert pod.wait() == 75, pod.output()
    operator.commands = []
    (again,) = cluster.start_run(FAKE_STEPS=str(stopped["step"] + 2))
    assert again.wait() == 0, again.output()
    assert f"rank 0 begins at step {stopped['step']}" in again.output()
    fault.ends("no deadline, no stall, pause and resume as ever", 0)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MinioServer]:
    """A MinIO of this test's own."""
    binary = minio_binary()
    if binary is None:
        pytest.skip("no MinIO program: build cluster/go/minio or set FINETUNE_MINIO")
    with running_minio(tmp_path / "minio", binary) as made:
        made.client().make_bucket("bucket")
        yield made


@pytest.fixture
def relay(server: MinioServer) -> Iterator[Relay]:
    """The network to it."""
    with running_relay(server.port) as made:
        yield made


def s3_job(server: MinioServer, tmp_path: Path, operator: ProgressServer, port: int | None = None) -> Cluster:
    """A job that stores into the server, through another port if need be."""
    secret = server.write_secret(tmp_path / "secrets/store")
    if port is not None:
        (secret / "AWS_ENDPOINT_URL").write_text(f"http://127.0.0.1:{port}")
    return Cluster(tmp_path, StoreConfig(uri="s3://bucket/team/job"), secret, progress_url=operator.url)


def test_sigkill_during_an_upload(server: MinioServer, relay: Relay, operator: ProgressServer, tmp_path: Path, fault: Fault) -> None:
    """Files without a manifest are no checkpoint: the next run goes on from the one before, and clears them away."""
    job = s3_job(server, tmp_path, operator, relay.port)
    try:
        (pod,) = job.start_run(FAKE_FILE_BYTES="1000000", FAKE_STEPS="4000", FAKE_STEP_SECONDS="0.3")
        operator.wait_for("checkpoints")
        relay.hold_after(1_500_000)
        assert relay.holding.wait(60)
        fault.strikes("SIGKILL of a pod during an upload")
        pod.kill()
        relay.release()
        committed = read_ledger(job.store).checkpoints[-1].step
        (again,) = job.start_run(FAKE_STEPS=str(committed + 1))
        assert again.wait() == 0, again.output()
        assert f"rank 0 begins at step {committed}" in again.output()
        assert operator.last["lostSteps"] >= 5, "a kill in an upload counts the steps of that upload"
        fault.ends("resumed from the checkpoint before", operator.last["lostSteps"])
    finally:
        job.close()


def test_keys_that_rotate_under_a_run(server: MinioServer, operator: ProgressServer, tmp_path: Path, fault: Fault) -> None:
    """403 with keys that worked: the Secret's files are read again until they fit; nothing restarts (design §4)."""
    job = s3_job(server, tmp_path, operator)
    binary = minio_binary()
    assert binary is not None
    try:
        (pod,) = job.start_run(TEST_PATIENCE_SECONDS="1", **SLOW)
        first = operator.wait_for("checkpoints")[-1]["step"]
        fault.strikes("the store's keys rotate during a run")
        server.stop()
        server.secret_key = "another-secret-key"
        server.start(binary)
        eventually(lambda: "CheckpointUploadFailing" in operator.last["warnings"], within=60, what="the refusal is said")
        server.write_secret(job.secret_dir)
        eventually(lambda: operator.last["checkpoints"][-1]["step"] > first, within=60, what="uploads go on")
        fault.recovered()
        assert "CheckpointUploadFailing" not in operator.last["warnings"]
        pod.signal()
        assert pod.wait() == 75, pod.output()
        assert read_ledger(job.store).checkpoints[-1].step == pod.message.step
        fault.ends("same pod, uploads went on with the new keys", 0)
    finally:
        job.close()

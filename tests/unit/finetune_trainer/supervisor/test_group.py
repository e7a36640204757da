"""Two pods without a shared volume: real supervisors that talk to each other, fake workers."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import Part
from finetune_trainer.store.ledger import read_ledger
from tests.support.pods import Cluster, Pod
from tests.support.progress_server import ProgressServer
from tests.support.waiting import eventually

SLOW = {"FAKE_STEPS": "400", "FAKE_STEP_SECONDS": "0.05"}


@pytest.fixture(params=["cluster", "s3_cluster"])
def pair(request: pytest.FixtureRequest) -> Cluster:
    """A job of two pods, on each kind of store."""
    made: Cluster = request.getfixturevalue(request.param)
    made.replicas = 2
    return made


@pytest.fixture
def local_pair(cluster: Cluster) -> Cluster:
    """A job of two pods with a ``file://`` store."""
    cluster.replicas = 2
    return cluster


def codes(pods: list[Pod]) -> list[int]:
    """Exit codes of all pods."""
    return [pod.wait(90) for pod in pods]


def outputs(pods: list[Pod]) -> str:
    """What all pods printed."""
    return "\n----\n".join(pod.output() for pod in pods)


def test_both_finish_once_the_final_commit_is_known(pair: Cluster) -> None:
    """Design §5: each pod uploads its own ranks' files, pod 0 writes the manifest; exit 0 on all once the final commit is known to all."""
    pods = pair.start_run()
    assert codes(pods) == [0, 0], outputs(pods)
    ledger = read_ledger(pair.store)
    assert [checkpoint.step for checkpoint in ledger.checkpoints] == [5, 10]
    manifest = ledger.checkpoints[-1].manifest
    assert manifest.pods == 2
    assert manifest.world_size == 2
    assert {"rng_state_0.pth", "rng_state_1.pth", "optimizer.pt"} <= {file.path for file in manifest.files}
    second = Part.model_validate_json(pair.store.get("a1/checkpoint-10/part-1-of-2.json"))
    assert [file.path for file in second.files] == ["rng_state_1.pth"]
    assert pods[1].message.exit_code == 0
    assert b"[rank 1]" in pair.store.get("logs/attempt-1/pod-1.log")


def test_pods_swap_nodes_between_attempts(pair: Cluster, operator: ProgressServer) -> None:
    """Each pod of the next run starts on an empty disk and fetches the common files and its own ranks'."""
    pods = pair.start_run(**SLOW)
    operator.wait_for_step(7)
    pods[0].signal()
    assert codes(pods) == [75, 75], outputs(pods)
    step = read_ledger(pair.store).checkpoints[-1].step
    again = pair.start_run(FAKE_STEPS=str(step + 2))
    assert codes(again) == [0, 0], outputs(again)
    assert f"rank 1 begins at step {step}" in again[1].output()


def test_a_signal_to_the_other_pod_stops_both(local_pair: Cluster, operator: ProgressServer) -> None:
    """Design §5: SIGTERM to one pod alone: all ranks agree on a step and save it."""
    pods = local_pair.start_run(**SLOW)
    operator.wait_for_step(3)
    pods[1].signal()
    assert codes(pods) == [75, 75], outputs(pods)
    assert read_ledger(local_pair.store).checkpoints[-1].manifest.trigger == "signal"


def test_pause_holds_both_pods(local_pair: Cluster, operator: ProgressServer) -> None:
    pods = local_pair.start_run(**SLOW)
    operator.wait_for_step(3)
    operator.command("pause", "pause-1")
    stopped = operator.wait_for("stopped")
    assert stopped["saved"]
    assert [pod.process.poll() for pod in pods] == [None, None]
    for pod in pods:
        pod.signal()
    assert codes(pods) == [75, 75], outputs(pods)


def test_a_dead_pod_ends_the_group(local_pair: Cluster, operator: ProgressServer) -> None:
    """Design §5: no GPU waits for a dead peer longer than 60 s; the survivor's code is 76."""
    pods = local_pair.start_run(**SLOW)
    operator.wait_for("checkpoints")
    pods[1].kill()
    assert pods[0].wait(90) == 76, pods[0].output()
    assert pods[0].message.failure_class == FailureClass.PEER_LOST
    assert pods[0].message.checkpoint is not None


def test_a_dead_leader_ends_the_group(local_pair: Cluster, operator: ProgressServer) -> None:
    pods = local_pair.start_run(**SLOW)
    operator.wait_for("checkpoints")
    pods[0].kill()
    assert pods[1].wait(90) == 76, pods[1].output()


def test_a_dead_worker_of_one_pod_ends_both(local_pair: Cluster, operator: ProgressServer) -> None:
    pods = local_pair.start_run(**SLOW)
    operator.wait_for("checkpoints")
    (worker,) = [pid for pid in pods[1].children() if "worker" in read_command(pid)]
    os.kill(worker, signal.SIGKILL)
    assert codes(pods) == [76, 1], outputs(pods)
    assert pods[1].message.failed_rank == 1


def test_a_user_error_of_one_rank_is_that_pods_code(local_pair: Cluster) -> None:
    """Across pods the first that is not PeerLost: the other pod says 76."""
    pods = local_pair.start_run(FAKE_EXIT="1:3:42", FAKE_STEPS="400")
    assert codes(pods) == [76, 42], outputs(pods)


@pytest.mark.parametrize("damaged", ["optimizer.pt", "rng_state_1.pth"])
def test_all_pods_fall_back_together(local_pair: Cluster, operator: ProgressServer, damaged: str) -> None:
    """Design §5: if any rank fails verification all fall back together to the checkpoint before."""
    pods = local_pair.start_run(FAKE_EXIT="1:14:1", FAKE_STEPS="400", FAKE_STEP_SECONDS="0.3")
    assert 1 in codes(pods)
    content = local_pair.store.get(f"a1/checkpoint-10/{damaged}")
    local_pair.store.put(f"a1/checkpoint-10/{damaged}", b"X" + content[1:])
    again = local_pair.start_run(FAKE_STEPS="13")
    assert codes(again) == [0, 0], outputs(again)
    assert "rank 0 begins at step 5" in again[0].output()
    assert "rank 1 begins at step 5" in again[1].output()
    assert damaged in operator.last["warnings"]["CheckpointRejected"]
    assert json.loads(local_pair.store.get("a2/checkpoint-10/manifest.json"))["parent"] == {"attempt": 1, "step": 5}


def test_a_start_that_fails_in_one_pod_ends_both(local_pair: Cluster) -> None:
    (local_pair.directory / "pvc/models/tiny/config.json").unlink()
    pods = local_pair.start_run()
    assert pods[0].wait() == 42
    assert pods[0].message.failure_class == FailureClass.MODEL
    assert pods[1].wait(180) == 76, "one that begins after pod 0's farewell waits as long as for a pod that has not begun"


def test_sigterm_while_waiting_for_pod_0(local_pair: Cluster) -> None:
    """OP-09: a pod that has not begun to train leaves at once."""
    pods = local_pair.start_run(**SLOW)
    pods[0].kill()
    eventually((pods[1].work_dir / "work/logs").is_dir, what="pod 1 has begun")
    pods[1].signal()
    assert pods[1].wait(60) == 75


def test_two_processes_in_one_pod(cluster: Cluster) -> None:
    """Issue 3: 1 replica x 2 processes."""
    cluster.processes = 2
    (pod,) = cluster.start_run()
    assert pod.wait() == 0, pod.output()
    files = {file.path for file in read_ledger(cluster.store).checkpoints[-1].manifest.files}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= files
    assert b"[rank 1]" in cluster.store.get("logs/attempt-1/pod-0.log")


def read_command(pid: int) -> str:
    """Command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")

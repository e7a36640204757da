"""Before the first step: checkpoints from elsewhere, and stops that come too early to have anything to save."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.contract.failures import FailureClass
from finetune_api.contract.store import AttemptRecord, CheckpointRef
from finetune_trainer.sources.hub_stream import EXCERPT_ROWS
from finetune_trainer.sources.plain_checkpoint import REQUIRED
from finetune_trainer.store.ledger import read_ledger
from tests.support.hub import running_hub
from tests.support.pods import Cluster
from tests.support.progress_server import ProgressServer
from tests.support.waiting import eventually

SLOW = {"FAKE_STEPS": "400", "FAKE_STEP_SECONDS": "0.05"}
ELSEWHERE = {"checkpoint": {"resumeFrom": "pvc://old/output/checkpoint-7"}}


def write_plain_checkpoint(directory: Path, *, step: int = 7) -> Path:
    """What a plain Trainer leaves behind."""
    directory.mkdir(parents=True)
    for name in REQUIRED["lora"]:
        (directory / name).write_text(name)
    (directory / "rng_state.pth").write_text(f"rng 0 {step}")
    (directory / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return directory


def test_resumes_from_a_plain_trainer_directory(cluster: Cluster) -> None:
    """AC-07: the next step is the one after the checkpoint's; recovery stays on the own branch."""
    write_plain_checkpoint(cluster.directory / "pvc/old/output/checkpoint-7")
    (pod,) = cluster.start_run(ELSEWHERE, FAKE_STEPS="400", FAKE_EXIT="0:12:1")
    assert pod.wait() == 1
    assert "rank 0 begins at step 7" in pod.output()
    parent = CheckpointRef(attempt=0, step=7, uri="pvc://old/output/checkpoint-7")
    assert AttemptRecord.model_validate_json(cluster.store.get("attempts/1.json")).parent == parent
    assert read_ledger(cluster.store).checkpoints[0].manifest.parent == parent
    (again,) = cluster.start_run(ELSEWHERE, FAKE_STEPS="13")
    assert again.wait() == 0
    assert "rank 0 begins at step 10" in again.output()


def test_incomplete_plain_directory_is_refused(cluster: Cluster) -> None:
    """AC-08: the missing file is named."""
    (write_plain_checkpoint(cluster.directory / "pvc/old/output/checkpoint-7") / "scheduler.pt").unlink()
    (pod,) = cluster.start_run(ELSEWHERE)
    assert pod.wait() == 42
    assert pod.message.failure_class == FailureClass.CHECKPOINT_INCOMPLETE
    assert "scheduler.pt is missing" in pod.message.message


def test_resumes_from_a_checkpoint_of_another_job(s3_cluster: Cluster, operator: ProgressServer) -> None:
    """With our manifest the digests are checked."""
    (pod,) = s3_cluster.start_run(FAKE_STEPS="400", FAKE_EXIT="0:7:1")
    assert pod.wait() == 1
    uri = s3_cluster.store.url("a1/checkpoint-5")
    s3_cluster.store_config = s3_cluster.store_config.model_copy(update={"uri": f"{s3_cluster.store_config.uri}-2"})
    (other,) = s3_cluster.start_run({"checkpoint": {"resumeFrom": uri}}, FAKE_STEPS="6")
    assert other.wait() == 0, other.output()
    assert "rank 0 begins at step 5" in other.output()


def test_a_stream_is_pinned_to_its_commit(cluster: Cluster) -> None:
    """E-14: all pods and later attempts read the commit that the first one found; of the rows an excerpt alone is prepared."""
    cluster.replicas = 2
    changes = {"dataset": {"uri": "hf://acme/rows", "streaming": True}, "training": {"maxSteps": 10}}
    with running_hub() as hub:
        secret = cluster.secret_dir.parent / "huggingface"
        secret.mkdir(parents=True)
        (secret / "HF_ENDPOINT").write_text(hub.endpoint)
        commit = hub.add("datasets", "acme/rows", {"train.jsonl": b'{"text": "one"}\n' * 2000})
        first = cluster.start_run(changes, FAKE_STEPS="400", FAKE_EXIT="0:7:1")
        assert first[0].wait() == 1, first[0].output()
        hub.repositories["datasets", "acme/rows"].commit({"train.jsonl": b'{"text": "two"}\n'})
        again = cluster.start_run(changes, FAKE_STEPS="8")
        assert [pod.wait() for pod in again] == [0, 0], again[0].output()
    found = [json.loads(next(pod.work_dir.rglob("worker-plan*.json")).read_text()) for pod in [*first, *again]]
    assert {plan["stream"]["commit"] for plan in found} == {commit}
    excerpt = next(again[0].work_dir.rglob("train/train.jsonl"))
    assert len(excerpt.read_text().splitlines()) == EXCERPT_ROWS


@pytest.fixture
def black_hole() -> Iterator[socket.socket]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        yield server


def test_sigterm_while_downloading_leaves_at_once(cluster: Cluster, black_hole: socket.socket) -> None:
    """OP-09: a pause in Starting has no pods left within seconds."""
    secret = cluster.secret_dir.parent / "huggingface"
    secret.mkdir(parents=True)
    (secret / "HF_ENDPOINT").write_text(f"http://127.0.0.1:{black_hole.getsockname()[1]}")
    (secret / "HF_TOKEN").write_text("x")
    changes = {"model": {"uri": "hf://org/model"}, "secrets": {"huggingface": {"secretRef": {"name": "hub"}}}}
    (pod,) = cluster.start_run(changes)
    connection, _ = black_hole.accept()
    with connection:
        pod.signal()
        assert pod.wait(60) == 75, pod.output()
    assert pod.message.exit_code == 75


def test_sigterm_while_preparing_leaves_at_once_and_takes_the_program_along(cluster: Cluster) -> None:
    (pod,) = cluster.start_run(FAKE_PREPARE_SECONDS="600")
    eventually(lambda: "preparing" in pod.output(), what="prepare has begun")
    (child,) = pod.children()
    pod.signal()
    assert pod.wait(60) == 75
    eventually(lambda: not Path(f"/proc/{child}").exists(), what="the program is gone")


def test_pause_while_preparing_is_answered(cluster: Cluster, operator: ProgressServer) -> None:
    """Before the first step there is nothing to save; the operator gets its answer and releases the pod."""
    (pod,) = cluster.start_run(FAKE_PREPARE_SECONDS="600")
    eventually(lambda: "preparing" in pod.output(), what="prepare has begun")
    operator.command("pause", "pause-1")
    stopped = operator.wait_for("stopped")
    assert not stopped["saved"]
    assert (stopped["step"], stopped["lostSteps"]) == (0, 0)
    operator.command("release", "release-1")
    assert pod.wait() == 75


def test_a_cache_survives_half_a_download(cluster: Cluster) -> None:
    """Temporary directories of a pod that was killed are nobody's cache; rows are prepared again."""
    (pod,) = cluster.start_run(FAKE_PREPARE_SECONDS="600")
    eventually(lambda: "preparing" in pod.output(), what="prepare has begun")
    pod.kill()
    (again,) = cluster.start_run()
    assert again.wait() == 0, again.output()

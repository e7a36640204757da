"""The store goes away and comes back: a real MinIO that is stopped and started again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.contract.run_config import StoreConfig
from finetune_trainer.store.ledger import read_ledger
from tests.support.minio import MinioServer, minio_binary, running_minio
from tests.support.pods import Cluster
from tests.support.progress_server import ProgressServer
from tests.support.waiting import eventually

SLOW = {"FAKE_STEPS": "4000", "FAKE_STEP_SECONDS": "0.05"}


@pytest.fixture
def binary() -> Path:
    """The MinIO program."""
    found = minio_binary()
    if found is None:
        pytest.skip("no MinIO program: build cluster/go/minio or set FINETUNE_MINIO")
    return found


@pytest.fixture
def server(binary: Path, tmp_path: Path) -> Iterator[MinioServer]:
    """A MinIO of this test's own."""
    with running_minio(tmp_path / "minio", binary) as made:
        made.client().make_bucket("bucket")
        yield made


@pytest.fixture
def job(server: MinioServer, tmp_path: Path, operator: ProgressServer) -> Iterator[Cluster]:
    """A job that stores into it."""
    secret = server.write_secret(tmp_path / "secrets/store")
    made = Cluster(tmp_path, StoreConfig(uri="s3://bucket/team/job"), secret, progress_url=operator.url)
    yield made
    made.close()


def test_uploads_catch_up_after_an_outage(job: Cluster, server: MinioServer, binary: Path, operator: ProgressServer) -> None:
    """Issue 3 no. 6: the store gone during saves: training does not stop, uploads catch up; replaced saves are counted, not the newest."""
    (pod,) = job.start_run(**SLOW)
    first = operator.wait_for("checkpoints")[-1]["step"]
    server.stop()
    eventually(lambda: "CheckpointUploadFailing" in operator.last["warnings"], within=60, what="a warning")
    operator.wait_for_step(operator.last["step"] + 20)
    gone_at = operator.last["step"]
    server.start(binary)
    eventually(lambda: operator.last["checkpoints"][-1]["step"] >= gone_at, within=90, what="uploads catch up")
    assert "CheckpointUploadFailing" not in operator.last["warnings"]
    assert first < gone_at
    pod.signal()
    assert pod.wait() == 75, pod.output()
    assert read_ledger(job.store).checkpoints[-1].step == pod.message.step


def test_a_pause_without_a_store_says_what_is_lost(job: Cluster, server: MinioServer, operator: ProgressServer) -> None:
    """Issue 3 no. 6: the pause waits up to its timeout, then says what is lost."""
    (pod,) = job.start_run({"pausePolicy": {"ifUnsaved": "Discard"}}, **SLOW)
    committed = operator.wait_for("checkpoints")[-1]["step"]
    server.stop()
    operator.wait_for_step(operator.last["step"] + 3)
    operator.command("pause", "pause-1", timeoutSeconds=3)
    stopped = operator.wait_for("stopped", within=60)
    assert not stopped["saved"]
    assert stopped["checkpoint"]["step"] >= committed
    assert stopped["lostSteps"] == stopped["step"] - stopped["checkpoint"]["step"] > 0
    assert pod.wait() == 75
    assert "steps are lost" in pod.message.message


def test_a_pause_that_waits_is_complete_when_the_store_is_back(
    job: Cluster, server: MinioServer, binary: Path, operator: ProgressServer
) -> None:
    """``ifUnsaved: Wait`` goes on trying after the timeout."""
    (pod,) = job.start_run({"pausePolicy": {"ifUnsaved": "Wait"}}, **SLOW)
    operator.wait_for("checkpoints")
    server.stop()
    operator.command("pause", "pause-1", timeoutSeconds=1)
    eventually(lambda: operator.last["phase"] == "Uploading", within=60, what="ranks have stopped")
    eventually(lambda: "CheckpointUploadFailing" in operator.last["warnings"], within=60, what="a warning")
    assert operator.last.get("stopped") is None
    server.start(binary)
    stopped = operator.wait_for("stopped", within=60)
    assert stopped["saved"]
    assert stopped["lostSteps"] == 0
    pod.signal()
    assert pod.wait() == 75


def test_a_release_ends_a_pause_that_waits(job: Cluster, server: MinioServer, operator: ProgressServer) -> None:
    (pod,) = job.start_run(**SLOW)
    operator.wait_for("checkpoints")
    server.stop()
    operator.command("pause", "pause-1", timeoutSeconds=1, ifUnsaved="Wait")
    eventually(lambda: operator.last["phase"] == "Uploading", within=60, what="ranks have stopped")
    operator.command("release", "release-1")
    stopped = operator.wait_for("stopped", within=60)
    assert not stopped["saved"]
    assert pod.wait() == 75

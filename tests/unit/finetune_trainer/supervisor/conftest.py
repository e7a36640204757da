"""A job on this machine, per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.contract.run_config import StoreConfig
from tests.support.minio import MinioServer
from tests.support.pods import Cluster
from tests.support.progress_server import ProgressServer, running_progress_server


@pytest.fixture
def operator() -> Iterator[ProgressServer]:
    """The operator's progress endpoint."""
    with running_progress_server() as server:
        yield server


@pytest.fixture
def cluster(tmp_path: Path, operator: ProgressServer) -> Iterator[Cluster]:
    """A job with a ``file://`` store."""
    made = Cluster(tmp_path, StoreConfig(uri=f"file://{tmp_path}/store"), tmp_path / "secrets/store", progress_url=operator.url)
    yield made
    made.close()


@pytest.fixture
def s3_cluster(tmp_path: Path, minio: MinioServer, bucket: str, operator: ProgressServer) -> Iterator[Cluster]:
    """A job with a bucket of a real MinIO."""
    secret = minio.write_secret(tmp_path / "secrets/store")
    made = Cluster(tmp_path, StoreConfig(uri=f"s3://{bucket}/team/job"), secret, progress_url=operator.url)
    yield made
    made.close()

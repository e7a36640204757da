"""A job on this machine, per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from finetune_api.contract.run_config import StoreConfig
from tests.support.minio import MinioServer
from tests.support.pods import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """A job with a ``file://`` store."""
    made = Cluster(tmp_path, StoreConfig(uri=f"file://{tmp_path}/store"), tmp_path / "secrets/store")
    yield made
    made.close()


@pytest.fixture
def s3_cluster(tmp_path: Path, minio: MinioServer, bucket: str) -> Iterator[Cluster]:
    """A job with a bucket of a real MinIO."""
    secret = minio.write_secret(tmp_path / "secrets/store")
    made = Cluster(tmp_path, StoreConfig(uri=f"s3://{bucket}/team/job"), secret)
    yield made
    made.close()

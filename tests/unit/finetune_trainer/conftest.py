"""Fixtures of the torch-free half of the trainer: a real MinIO per test session, a bucket per test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finetune_trainer.store.base import Store
from finetune_trainer.store.credentials import SecretFiles
from finetune_trainer.store.local import LocalStore
from finetune_trainer.store.s3 import S3Store
from finetune_trainer.store.s3_client import S3Connection, parse_s3_uri
from tests.support.minio import MinioServer, minio_binary, running_minio

BUCKET_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """A real MinIO server."""
    binary = minio_binary()
    if binary is None:
        pytest.skip("no MinIO program: build cluster/go/minio or set FINETUNE_MINIO")
    with running_minio(tmp_path_factory.mktemp("minio"), binary) as server:
        yield server


@pytest.fixture
def bucket(minio: MinioServer) -> str:
    """A new, empty bucket."""
    name = f"test-{next(BUCKET_NUMBERS)}"
    minio.client().make_bucket(name)
    return name


@pytest.fixture
def s3_store(minio: MinioServer, bucket: str, tmp_path: Path) -> S3Store:
    """A store in a new bucket, credentials from files."""
    secret = SecretFiles(minio.write_secret(tmp_path / "secret"), "finetune-storage")
    return S3Store(S3Connection(parse_s3_uri(f"s3://{bucket}/team/job"), secret), patience=20)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each backend in turn."""
    if request.param == "file":
        return LocalStore(tmp_path / "store", patience=5)
    made: S3Store = request.getfixturevalue("s3_store")
    return made


@pytest.fixture
def make_file(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """Writes a file below the test's directory."""

    def make(name: str, content: bytes) -> Path:
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make

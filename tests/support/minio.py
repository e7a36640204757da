"""A real MinIO server for tests: its own port, directory and keys; started and ended by whoever asks."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3
from minio import Minio, MinioAdmin
from minio.credentials.providers import StaticProvider

from tests.support.ports import free_port

ACCESS_KEY = "finetune-test"
START_SECONDS = 30.0


def minio_binary() -> Path | None:
    """The MinIO program: ``$FINETUNE_MINIO``, else the one the cluster's build leaves in the cache (``cluster/go/minio``)."""
    for candidate in (os.environ.get("FINETUNE_MINIO"), Path.home() / ".cache/finetune/bin/minio"):
        if candidate and Path(candidate).is_file():
            return Path(candidate)
    return None


@dataclass
class MinioServer:
    """A running server and its root credentials."""

    directory: Path
    port: int
    secret_key: str
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """URL of the S3 API."""
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> Minio:
        """A root client."""
        return Minio(f"127.0.0.1:{self.port}", access_key=ACCESS_KEY, secret_key=self.secret_key, secure=False, region="us-east-1")

    def add_user(self, name: str, policy: str) -> str:
        """A user of the service with one of its policies; returns the secret key."""
        secret_key = secrets.token_hex(16)
        root = StaticProvider(ACCESS_KEY, self.secret_key)
        admin = MinioAdmin(endpoint=f"127.0.0.1:{self.port}", credentials=root, secure=False)
        admin.user_add(name, secret_key)
        admin.attach_policy([policy], user=name)
        return secret_key

    def write_secret(self, directory: Path, *, access_key: str = ACCESS_KEY, secret_key: str | None = None) -> Path:
        """The server's credentials as files, as a mounted Secret shows them."""
        directory.mkdir(parents=True, exist_ok=True)
        values = {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key or self.secret_key,
            "AWS_ENDPOINT_URL": self.endpoint,
        }
        for key, value in values.items():
            (directory / key).write_text(value + "\n")
        return directory

    def start(self, binary: Path) -> None:
        """Start and wait until it answers."""
        environment = {**os.environ, "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": self.secret_key, "MINIO_BROWSER": "off"}
        self.process = subprocess.Popen(
            [str(binary), "server", "--quiet", "--address", f"127.0.0.1:{self.port}", str(self.directory)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + START_SECONDS
        with urllib3.PoolManager(retries=False, timeout=1.0) as http:
            while not _is_ready(http, self.endpoint):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"MinIO does not start (exit status {self.process.poll()})")
                time.sleep(0.05)

    def stop(self) -> None:
        """End it and wait; its data stays."""
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(timeout=20)
            self.process = None


def _is_ready(http: urllib3.PoolManager, endpoint: str) -> bool:
    try:
        return http.request("GET", f"{endpoint}/minio/health/cluster").status == 200
    except urllib3.exceptions.HTTPError:
        return False


@contextmanager
def running_minio(directory: Path, binary: Path) -> Iterator[MinioServer]:
    """A server that lives as long as the context."""
    server = MinioServer(directory, free_port(), secrets.token_hex(16))
    directory.mkdir(parents=True, exist_ok=True)
    server.start(binary)
    try:
        yield server
    finally:
        server.stop()

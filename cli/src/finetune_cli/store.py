"""Reading what a job left in its store: a bucket, or a directory of a local run."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import minio
import urllib3
from minio.error import MinioException

from finetune_api.constants import DEFAULT_STORE_SECRET
from finetune_cli.cluster import Cluster
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.portforward import reachable

CONNECT_SECONDS = 10
READ_SECONDS = 60


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object below a job's prefix."""

    key: str
    """Relative to the prefix."""
    size: int
    """Bytes."""


class Store(Protocol):
    """A job's objects; keys are relative to its prefix."""

    @property
    def uri(self) -> str:
        """The prefix itself."""

    def files(self, prefix: str) -> list[StoredFile]:
        """All objects whose key starts with a prefix, by key."""

    def read(self, key: str) -> bytes:
        """Contents of an object."""


@dataclass(frozen=True, slots=True)
class DirectoryStore:
    """The store of a local run."""

    root: Path

    @property
    def uri(self) -> str:
        """The prefix itself."""
        return self.root.absolute().as_uri()

    def files(self, prefix: str) -> list[StoredFile]:
        """All files whose relative path starts with a prefix, by path."""
        found = (path for path in self.root.rglob("*") if path.is_file())
        keyed = ((path.relative_to(self.root).as_posix(), path.stat().st_size) for path in found)
        return sorted((StoredFile(key, size) for key, size in keyed if key.startswith(prefix)), key=lambda file: file.key)

    def read(self, key: str) -> bytes:
        """Contents of a file."""
        try:
            return (self.root / key).read_bytes()
        except OSError as error:
            raise CliError(f"{self.root / key} cannot be read: {error.strerror}") from error


@dataclass(frozen=True, slots=True)
class BucketStore:
    """A prefix of a bucket."""

    client: minio.Minio
    bucket: str
    prefix: str
    """Without slashes at its ends; may be empty."""

    @property
    def uri(self) -> str:
        """The prefix itself."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def files(self, prefix: str) -> list[StoredFile]:
        """All objects whose key starts with a prefix, by key."""
        start = f"{self.prefix}/" if self.prefix else ""
        try:
            objects = list(self.client.list_objects(self.bucket, prefix=f"{start}{prefix}", recursive=True))
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise CliError(f"{self.uri}/{prefix} cannot be listed: {error}") from error
        return [StoredFile((found.object_name or "").removeprefix(start), found.size or 0) for found in objects]

    def read(self, key: str) -> bytes:
        """Contents of an object."""
        name = f"{self.prefix}/{key}" if self.prefix else key
        try:
            response = self.client.get_object(self.bucket, name)
            try:
                return response.read()
            finally:
                response.close()
                response.release_conn()
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise CliError(f"{self.uri}/{key} cannot be read: {error}") from error

    def write(self, key: str, path: Path) -> None:
        """Upload a file."""
        try:
            self.client.fput_object(self.bucket, f"{self.prefix}/{key}" if self.prefix else key, str(path))
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise CliError(f"{self.uri}/{key} cannot be written: {error}") from error


def open_directory(uri: str) -> DirectoryStore:
    """Open a ``file://`` store.

    Raises:
        CliError: there is no such directory.
    """
    root = Path(urlsplit(uri).path)
    if not root.is_dir():
        raise CliError(f"{uri}: there is no such directory")
    return DirectoryStore(root)


def open_bucket(uri: str, credentials: Mapping[str, str], endpoint: str) -> BucketStore:
    """Open a prefix of a bucket with the keys of a store Secret (AWS_ACCESS_KEY_ID, ...)."""
    parts, at = urlsplit(uri), urlsplit(endpoint)
    missing = [key for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY") if not credentials.get(key)]
    if missing:
        raise CliError(f"the credentials for {uri} lack {' and '.join(missing)}")
    return BucketStore(
        client=minio.Minio(
            at.netloc,
            access_key=credentials["AWS_ACCESS_KEY_ID"],
            secret_key=credentials["AWS_SECRET_ACCESS_KEY"],
            session_token=credentials.get("AWS_SESSION_TOKEN"),
            region=credentials.get("AWS_REGION"),
            secure=at.scheme == "https",
            http_client=_http_client(credentials.get("ca.crt")),
        ),
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
    )


def open_store(uri: str, credentials: Mapping[str, str]) -> Store:
    """Open a store by its URI; ``credentials`` are those of a Secret, or environment variables of the same names."""
    match urlsplit(uri).scheme:
        case "file":
            return open_directory(uri)
        case "s3" | "gs":
            return open_bucket(uri, credentials, endpoint_of(uri, credentials))
        case _:
            raise CliError(f"{uri} is no store; write file:///dir, s3://bucket/prefix or gs://bucket/prefix")


def endpoint_of(uri: str, credentials: Mapping[str, str]) -> str:
    """Address of the S3 server: as the credentials say, else the provider's."""
    default = "https://storage.googleapis.com" if uri.startswith("gs://") else "https://s3.amazonaws.com"
    return credentials.get("AWS_ENDPOINT_URL", default)


@contextmanager
def job_store(job: Job, cluster: Cluster) -> Iterator[Store]:
    """Open the store of a job with the credentials its pods use; a store inside the cluster is reached by a port-forward.

    Raises:
        CliError: the job has written nothing yet, or its Secret or store cannot be read.
    """
    uri = job.status.output_uri
    if uri is None:
        raise CliError(f"{job.ref} has no output yet; its phase is {job.phase}")
    secret = job.spec.get("checkpoint", {}).get("secretRef", {}).get("name", DEFAULT_STORE_SECRET)
    credentials = cluster.secret(secret, job.ref.namespace)
    with reachable(endpoint_of(uri, credentials), cluster.access) as endpoint:
        yield open_bucket(uri, credentials, endpoint)


def _http_client(ca_pem: str | None) -> urllib3.PoolManager:
    context = ssl.create_default_context(cadata=ca_pem) if ca_pem else ssl.create_default_context()
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    return urllib3.PoolManager(timeout=timeout, retries=urllib3.Retry(3, backoff_factor=0.2), ssl_context=context)

"""Reading what a job left in its store: a bucket, or a directory of a local run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from finetune_api.constants import DEFAULT_STORE_SECRET
from finetune_cli.errors import CliError
from finetune_cli.job import Job
from finetune_cli.portforward import reachable

if TYPE_CHECKING:
    from finetune_cli.cluster import Cluster


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

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object, however large, into a file."""


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

    def fetch(self, key: str, path: Path) -> None:
        """Copy a file."""
        try:
            shutil.copyfile(self.root / key, path)
        except OSError as error:
            raise CliError(f"{self.root / key} cannot be copied to {path}: {error.strerror}") from error


def open_directory(uri: str) -> DirectoryStore:
    """Open a ``file://`` store.

    Raises:
        CliError: there is no such directory.
    """
    root = Path(urlsplit(uri).path)
    if not root.is_dir():
        raise CliError(f"{uri}: there is no such directory")
    return DirectoryStore(root)


def open_store(uri: str, credentials: Mapping[str, str]) -> Store:
    """Open a store by its URI; ``credentials`` are those of a Secret, or environment variables of the same names."""
    match urlsplit(uri).scheme:
        case "file":
            return open_directory(uri)
        case "s3" | "gs":
            from finetune_cli.bucket import open_bucket

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
    from finetune_cli.bucket import open_bucket

    uri = job.status.output_uri
    if uri is None:
        raise CliError(f"{job.ref} has no output yet; its phase is {job.phase}")
    secret = job.spec.get("checkpoint", {}).get("secretRef", {}).get("name") or job.status.store_secret or DEFAULT_STORE_SECRET
    credentials = cluster.secret(secret, job.ref.namespace)
    with reachable(endpoint_of(uri, credentials), cluster.access) as endpoint:
        yield open_bucket(uri, credentials, endpoint)

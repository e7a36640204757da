"""A job's store in a bucket: any server that speaks S3."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import minio
import urllib3
from minio.error import MinioException

from finetune_cli.errors import CliError
from finetune_cli.store import StoredFile

CONNECT_SECONDS = 10
READ_SECONDS = 60


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

    def fetch(self, key: str, path: Path) -> None:
        """Download an object; what is at ``path`` is complete, never a part."""
        try:
            self.client.fget_object(self.bucket, f"{self.prefix}/{key}" if self.prefix else key, str(path))
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise CliError(f"{self.uri}/{key} cannot be read: {error}") from error
        except OSError as error:
            raise CliError(f"{path} cannot be written: {error.strerror}") from error

    def write(self, key: str, path: Path) -> None:
        """Upload a file."""
        try:
            self.client.fput_object(self.bucket, f"{self.prefix}/{key}" if self.prefix else key, str(path))
        except (MinioException, urllib3.exceptions.HTTPError) as error:
            raise CliError(f"{self.uri}/{key} cannot be written: {error}") from error


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


def _http_client(ca_pem: str | None) -> urllib3.PoolManager:
    context = ssl.create_default_context(cadata=ca_pem) if ca_pem else ssl.create_default_context()
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    return urllib3.PoolManager(timeout=timeout, retries=urllib3.Retry(3, backoff_factor=0.2), ssl_context=context)

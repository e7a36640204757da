"""One S3 service as seen through one Secret: builds the SDK client and rebuilds it when the Secret's files change."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

import urllib3
from minio import Minio

from finetune_trainer.errors import configuration_error
from finetune_trainer.store.credentials import S3Credentials, SecretFiles, read_s3_credentials
from finetune_trainer.store.http_pool import http_pool

AWS_ENDPOINT = "https://s3.amazonaws.com"
GCS_ENDPOINT = "https://storage.googleapis.com"
CONNECT_TIMEOUT_SECONDS = 5.0
READ_TIMEOUT_SECONDS = 60.0
CONNECTIONS = 64


class S3Location(NamedTuple):
    """A bucket and a prefix, parsed from a URI."""

    scheme: str
    bucket: str
    prefix: str
    """Without leading and trailing slashes; may be empty."""
    endpoint: str | None = None
    region: str | None = None

    def object_name(self, key: str) -> str:
        """Full object name of a key."""
        return f"{self.prefix}/{key}" if self.prefix else key

    def url(self, key: str = "") -> str:
        """URI of a key."""
        return f"{self.scheme}://{self.bucket}/{self.object_name(key)}".rstrip("/")


def parse_s3_uri(uri: str, *, endpoint: str | None = None, region: str | None = None) -> S3Location:
    """Split ``s3://bucket/prefix`` or ``gs://bucket/prefix``."""
    parts = urlsplit(uri)
    if parts.scheme not in ("s3", "gs") or not parts.netloc:
        raise configuration_error(f"{uri} is no s3://bucket/path or gs://bucket/path.")
    return S3Location(parts.scheme, parts.netloc, parts.path.strip("/"), endpoint, region)


class Session(NamedTuple):
    """A client made from one reading of the Secret."""

    client: Minio
    http: urllib3.PoolManager
    endpoint: str


@dataclass(frozen=True)
class _Made:
    credentials: S3Credentials
    session: Session


class S3Connection:
    """Thread-safe holder of the current client; shared by all copies of a store."""

    def __init__(self, location: S3Location, secret: SecretFiles) -> None:
        self.location = location
        self.secret = secret
        self.conditional_writes = True
        """Set to False by the probe when the service ignores If-None-Match."""
        self.has_worked = False
        """A request succeeded: a later refusal may be a rotation under way."""
        self._lock = threading.Lock()
        self._made: _Made | None = None

    def session(self) -> Session:
        """Return the current client; made at first use. Raises StorageAuthError when the Secret lacks a key."""
        with self._lock:
            if self._made is None:
                self._made = self._make(read_s3_credentials(self.secret))
            return self._made.session

    def refresh(self) -> bool:
        """Read the Secret again after a refusal; True when its content changed and a new client stands ready."""
        credentials = read_s3_credentials(self.secret)
        with self._lock:
            if self._made is not None and self._made.credentials == credentials:
                return False
            self._made = self._make(credentials)
            return True

    def _make(self, credentials: S3Credentials) -> _Made:
        default = GCS_ENDPOINT if self.location.scheme == "gs" else AWS_ENDPOINT
        endpoint = (credentials.endpoint or self.location.endpoint or default).rstrip("/")
        parts = urlsplit(endpoint)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.path:
            raise configuration_error(
                f"The S3 endpoint {endpoint} (AWS_ENDPOINT_URL of Secret {self.secret.name}) must look like http://host:port or https://host."
            )
        pool = http_pool(
            endpoint,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=READ_TIMEOUT_SECONDS),
            maxsize=CONNECTIONS,
            retries=False,
            cert_reqs="CERT_REQUIRED",
            ca_certs=str(credentials.ca_file) if credentials.ca_file else None,
        )
        region = credentials.region or self.location.region or (None if endpoint == AWS_ENDPOINT else "us-east-1")
        client = Minio(
            parts.netloc,
            access_key=credentials.access_key,
            secret_key=credentials.secret_key,
            session_token=credentials.session_token,
            secure=parts.scheme == "https",
            region=region,
            http_client=pool,
        )
        return _Made(credentials, Session(client, pool, endpoint))

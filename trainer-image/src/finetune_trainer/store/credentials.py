"""Credentials of an S3 store: files of a mounted Secret, read anew whenever the store refuses them (they rotate under a running job)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from finetune_api.contract.env import MIN_S3_KEYS, OPTIONAL_S3_KEYS
from finetune_trainer.store.errors import StorageAuthError

CA_KEY = "ca.crt"


@dataclass(frozen=True)
class SecretFiles:
    """A Secret mounted as a directory, one file per key."""

    directory: Path
    name: str
    """Name of the Secret object, for messages."""

    def read(self, key: str) -> str | None:
        """Value of a key without surrounding white space; None when the Secret or the key is missing or empty."""
        try:
            value = (self.directory / key).read_text(encoding="utf-8").strip()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise StorageAuthError(f"Secret {self.name}: key {key} cannot be read by this user ({error.strerror}).") from error
        return value or None


@dataclass(frozen=True)
class S3Credentials:
    """What a client needs beside bucket and key."""

    access_key: str
    secret_key: str
    session_token: str | None
    endpoint: str | None
    region: str | None
    ca_file: Path | None
    ca_digest: int
    """Changes with the CA's content, so that a rotated CA makes a new client."""


def read_s3_credentials(secret: SecretFiles) -> S3Credentials:
    """Read the Secret's files. Raises StorageAuthError that names the Secret and every missing key."""
    missing = [key for key in MIN_S3_KEYS if secret.read(key) is None]
    if missing:
        state = "lacks" if secret.directory.is_dir() and any(secret.directory.iterdir()) else "does not exist or is empty; it needs"
        raise StorageAuthError(f"Secret {secret.name} {state} the key {' and the key '.join(missing)}: create it in the job's namespace.")
    values = {key: secret.read(key) for key in (*MIN_S3_KEYS, *OPTIONAL_S3_KEYS)}
    ca = values[CA_KEY]
    return S3Credentials(
        access_key=values["AWS_ACCESS_KEY_ID"] or "",
        secret_key=values["AWS_SECRET_ACCESS_KEY"] or "",
        session_token=values["AWS_SESSION_TOKEN"],
        endpoint=values["AWS_ENDPOINT_URL"],
        region=values["AWS_REGION"],
        ca_file=secret.directory / CA_KEY if ca else None,
        ca_digest=hash(ca),
    )

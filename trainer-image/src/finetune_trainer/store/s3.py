"""A store in an S3 bucket (any S3-compatible service; ``gs://`` through its XML API with HMAC keys)."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

from minio.deleteobjects import DeleteObject
from minio.error import S3Error

from finetune_trainer.errors import configuration_error
from finetune_trainer.store.base import ObjectInfo
from finetune_trainer.store.errors import ObjectNotFoundError, StorageAuthError, StorageUnavailableError
from finetune_trainer.store.retrying import with_retries
from finetune_trainer.store.s3_client import S3Connection, Session
from finetune_trainer.store.s3_errors import SDK_ERRORS, Place, RefusedError, error_code, translate, translate_code
from finetune_trainer.store.segments import read_in_order

Result = TypeVar("Result")
PART_BYTES = 32 * 1024 * 1024
PARALLEL_PARTS = 4
"""Parts of one file in flight; several files are uploaded at once, so this bounds memory, not speed."""
DEFAULT_PATIENCE_SECONDS = 60.0
EPOCH = datetime.fromtimestamp(0, UTC)
"""Age of an object whose service tells none."""
PRESIGNED_LIFETIME = timedelta(minutes=10)


class S3Store:
    """Objects under one prefix of one bucket."""

    def __init__(self, connection: S3Connection, *, patience: float = DEFAULT_PATIENCE_SECONDS) -> None:
        self.connection = connection
        self._location = connection.location
        self._patience = patience

    def with_patience(self, seconds: float) -> S3Store:
        """Return the same store with another retry deadline per call."""
        return S3Store(self.connection, patience=seconds)

    def url(self, key: str) -> str:
        """URI of an object."""
        return self._location.url(key)

    def get(self, key: str) -> bytes:
        """Whole content of a small object."""
        return self._call("read", key, lambda session: self._read(session, key))

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``; fewer at the end of the object."""
        return self._call("read", key, lambda session: self._read(session, key, start=start, length=length))

    def put(self, key: str, data: bytes) -> None:
        """Write a small object, replacing what is there."""
        name = self._location.object_name(key)
        self._call("write", key, lambda session: session.client.put_object(self._location.bucket, name, io.BytesIO(data), len(data)))

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object unless one of that key exists: If-None-Match on a presigned PUT (the SDK's own put drops the header)."""
        if not self.connection.conditional_writes:
            return self._create_unguarded(key, data)
        may_be_ours = False

        def try_once(session: Session) -> bool:
            nonlocal may_be_ours
            name = self._location.object_name(key)
            url = session.client.get_presigned_url("PUT", self._location.bucket, name, expires=PRESIGNED_LIFETIME)
            sent_before, may_be_ours = may_be_ours, True
            response = session.http.request("PUT", url, body=data, headers={"If-None-Match": "*"}, retries=False)
            if response.status in (200, 201, 204):
                return True
            if response.status == 412:
                return sent_before and self._read(session, key) == data
            code = error_code(response.data)
            if response.status == 501 or code == "NotImplemented":
                self.connection.conditional_writes = False
                return self._create_unguarded(key, data)
            raise translate_code(code, "", response.status, self._place(session, key))

        return self._call("create", key, try_once)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with ``prefix``, in key order."""
        skip = len(self._location.object_name(""))
        name = self._location.object_name(prefix)

        def read_all(session: Session) -> list[ObjectInfo]:
            found = session.client.list_objects(self._location.bucket, prefix=name or None, recursive=True)
            return [
                ObjectInfo((item.object_name or "")[skip:], item.size or 0, (item.etag or "").strip('"'), item.last_modified or EPOCH)
                for item in found
                if not item.is_dir
            ]

        yield from self._call("list", prefix, read_all)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; absent ones are fine."""
        names = [self._location.object_name(key) for key in keys]

        def remove(session: Session) -> None:
            if self._location.scheme == "gs":  # its XML API has no multi-object delete
                for name in names:
                    session.client.remove_object(self._location.bucket, name)
                return
            for error in session.client.remove_objects(self._location.bucket, [DeleteObject(name) for name in names]):
                raise translate_code(
                    error.code, error.message or "", 403 if error.code == "AccessDenied" else 500, self._place(session, error.name or "")
                )

        if names:
            self._call("delete", "", remove)

    def upload(self, key: str, path: Path) -> None:
        """Copy a file into the store in parallel parts."""
        name = self._location.object_name(key)

        def send(session: Session) -> None:
            session.client.fput_object(self._location.bucket, name, str(path), part_size=PART_BYTES, num_parallel_uploads=PARALLEL_PARTS)

        if not path.is_file():
            raise FileNotFoundError(path)
        self._call("upload", key, send)

    def download(self, key: str, path: Path) -> str:
        """Copy an object into a new file in parallel ranges; returns its sha256 in hex."""
        name = self._location.object_name(key)
        info = self._call("look up", key, lambda session: session.client.stat_object(self._location.bucket, name))
        digest = hashlib.sha256()

        def read(start: int, length: int) -> bytes:
            return self._call("read", key, lambda session: self._read(session, key, start=start, length=length, etag=info.etag))

        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for piece in read_in_order(info.size or 0, read):
                digest.update(piece)
                file.write(piece)
        return digest.hexdigest()

    def _create_unguarded(self, key: str, data: bytes) -> bool:
        """Look first, then write: all that is left where the service ignores If-None-Match (a warning says so)."""
        try:
            return self.get(key) == data
        except ObjectNotFoundError:
            self.put(key, data)
            return True

    def _read(self, session: Session, key: str, *, start: int = 0, length: int = 0, etag: str | None = None) -> bytes:
        name = self._location.object_name(key)
        headers: dict[str, str | list[str] | tuple[str]] | None = {"If-Match": f'"{etag}"'} if etag else None
        try:
            response = session.client.get_object(self._location.bucket, name, offset=start, length=length, request_headers=headers)
        except S3Error as error:
            if error.code == "InvalidRange":
                return b""
            if error.code == "PreconditionFailed":
                raise configuration_error(f"{self.url(key)} was replaced while it was read: leave it alone while a job starts.") from error
            raise
        try:
            data = response.read()
        finally:
            response.close()
            response.release_conn()
        return data

    def _place(self, session: Session, key: str) -> Place:
        return Place(self.url(key), self._location.bucket, session.endpoint, self.connection.secret.name)

    def _call(self, verb: str, key: str, request: Callable[[Session], Result]) -> Result:
        def try_once() -> Result:
            session = self.connection.session()
            try:
                result = request(session)
            except SDK_ERRORS as error:
                raise self._after(translate(error, self._place(session, key))) from error
            except RefusedError as error:
                raise self._after(error) from error
            self.connection.has_worked = True
            return result

        try:
            return with_retries(try_once, what=f"{verb} {self.url(key)}", patience=self._patience)
        except StorageUnavailableError as error:
            if isinstance(error.__cause__, RefusedError):
                raise error.__cause__.auth_error from error
            raise

    def _after(self, error: Exception) -> Exception:
        """What to raise for a failed try: a refusal is final unless the Secret changed or is known to have worked."""
        if not isinstance(error, RefusedError):
            return error
        try:
            changed = self.connection.refresh()
        except StorageAuthError as missing:
            return RefusedError(missing) if self.connection.has_worked else missing
        return error if changed or self.connection.has_worked else error.auth_error

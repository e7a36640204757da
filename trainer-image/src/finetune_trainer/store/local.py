"""A store in a local directory: local runs and tests. The same promises as an S3 bucket, kept by rename and hard link."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

from finetune_trainer.errors import configuration_error
from finetune_trainer.store.base import ObjectInfo
from finetune_trainer.store.errors import ObjectNotFoundError, StorageAuthError, TransientStoreError
from finetune_trainer.store.retrying import with_retries

Result = TypeVar("Result")
TEMPORARY_PREFIX = ".writing-"
COPY_BYTES = 4 * 1024 * 1024
DEFAULT_PATIENCE_SECONDS = 60.0


class LocalStore:
    """Objects as files below a directory."""

    def __init__(self, directory: Path, *, patience: float = DEFAULT_PATIENCE_SECONDS) -> None:
        self._directory = directory
        self._patience = patience

    def with_patience(self, seconds: float) -> LocalStore:
        """Return the same store with another retry deadline per call."""
        return LocalStore(self._directory, patience=seconds)

    def url(self, key: str) -> str:
        """URI of an object."""
        return f"file://{self._directory / key}".rstrip("/")

    def get(self, key: str) -> bytes:
        """Whole content of an object."""
        return self._call("read", key, lambda path: path.read_bytes())

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``; fewer at the end of the object."""

        def read(path: Path) -> bytes:
            with path.open("rb") as file:
                file.seek(start)
                return file.read(length)

        return self._call("read", key, read)

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing what is there."""
        self._call("write", key, lambda path: _replace(path, lambda temporary: temporary.write_bytes(data)))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless one of that key exists: a hard link to a finished file fails where a name is taken."""

        def link(path: Path) -> bool:
            def without_replacing(temporary: Path) -> bool:
                try:
                    path.hardlink_to(temporary)
                except FileExistsError:
                    return False
                return True

            return _place(path, lambda temporary: temporary.write_bytes(data), without_replacing)

        return self._call("create", key, link)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with ``prefix``, in key order; those removed meanwhile are left out."""

        def read_all(_: Path) -> list[ObjectInfo]:
            return sorted(info for path in self._files(prefix) if (info := self._info(path)) is not None)

        yield from self._call("list", prefix, read_all)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects and the folders this leaves empty."""
        for key in keys:
            self._call("delete", key, self._remove)

    def upload(self, key: str, path: Path) -> None:
        """Copy a file into the store."""
        if not path.is_file():
            raise FileNotFoundError(path)
        self._call("upload", key, lambda target: _replace(target, lambda temporary: shutil.copyfile(path, temporary)))

    def download(self, key: str, path: Path) -> str:
        """Copy an object into a new file; returns its sha256 in hex."""
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()

        def copy(source: Path) -> None:
            with source.open("rb") as reader, path.open("xb") as writer:
                while piece := reader.read(COPY_BYTES):
                    digest.update(piece)
                    writer.write(piece)

        self._call("read", key, copy)
        return digest.hexdigest()

    def _files(self, prefix: str) -> Iterator[Path]:
        def unless_removed(error: OSError) -> None:
            if not isinstance(error, FileNotFoundError):
                raise error

        start = self._directory / prefix
        for folder, _, names in os.walk(start if prefix.endswith("/") or not prefix else start.parent, onerror=unless_removed):
            for name in names:
                path = Path(folder, name)
                if self._key(path).startswith(prefix) and not name.startswith(TEMPORARY_PREFIX):
                    yield path

    def _info(self, path: Path) -> ObjectInfo | None:
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        etag = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
        return ObjectInfo(self._key(path), status.st_size, etag, datetime.fromtimestamp(status.st_mtime, UTC))

    def _key(self, path: Path) -> str:
        return path.relative_to(self._directory).as_posix()

    def _remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        for folder in path.parents:
            if folder == self._directory or not folder.is_relative_to(self._directory):
                return
            try:
                folder.rmdir()
            except OSError:
                return

    def _call(self, verb: str, key: str, operation: Callable[[Path], Result]) -> Result:
        url = self.url(key)

        def try_once() -> Result:
            try:
                return operation(self._directory / key)
            except FileNotFoundError as error:
                raise ObjectNotFoundError(url) from error
            except PermissionError as error:
                raise StorageAuthError(
                    f"{verb} {url}: permission denied for user {os.getuid()}; mend the directory's owner or mode."
                ) from error
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EAGAIN):
                    raise TransientStoreError(str(error)) from error
                raise configuration_error(f"{verb} {url}: {error}.") from error

        return with_retries(try_once, what=f"{verb} {url}", patience=self._patience)


def local_directory(uri: str) -> Path:
    """Directory of a ``file:///path`` URI."""
    parts = urlsplit(uri)
    if parts.scheme != "file" or parts.netloc or not parts.path.startswith("/"):
        raise configuration_error(f"{uri} must look like file:///absolute/path.")
    return Path(unquote(parts.path))


def _replace(path: Path, fill: Callable[[Path], object]) -> None:
    _place(path, fill, lambda temporary: temporary.replace(path))


def _place(path: Path, fill: Callable[[Path], object], place: Callable[[Path], Result]) -> Result:
    """Fill a file that no reader takes for an object, then ``place`` it at ``path``.

    Whoever deletes removes emptied folders, so one may be gone between its making and its use: that is worth another try.
    """
    _make_folder(path.parent)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        fill(temporary)
        return place(temporary)
    except FileNotFoundError as error:
        if path.parent.is_dir():
            raise
        raise TransientStoreError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileNotFoundError, FileExistsError) as error:
        if folder.is_file():
            raise
        raise TransientStoreError(str(error)) from error

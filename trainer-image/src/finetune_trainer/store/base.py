"""What every store can do. Keys are relative to the store's URI and use ``/``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Protocol


class ObjectInfo(NamedTuple):
    """An object as a listing shows it."""

    key: str
    size: int
    """Bytes."""
    etag: str
    """Changes when the content does. No digest: multipart uploads make their own."""
    modified: datetime
    """When it was written, by the store's clock, UTC."""


class Store(Protocol):
    """A flat set of objects. Every method retries outages up to the store's patience.

    Raises :class:`~finetune_trainer.store.errors.StorageAuthError`, :class:`~finetune_trainer.store.errors.StorageUnavailableError`, and
    :class:`~finetune_trainer.store.errors.ObjectNotFoundError` where a key must exist.
    """

    def url(self, key: str) -> str:
        """URI of an object for people and status fields."""

    def get(self, key: str) -> bytes:
        """Whole content of a small object."""

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes from ``start``; fewer at the end of the object."""

    def put(self, key: str, data: bytes) -> None:
        """Write a small object, replacing what is there. Readers see the old or the new content, never a part."""

    def create(self, key: str, data: bytes) -> bool:
        """Write a small object unless one of that key exists. True: this call (or an earlier try of it) made it."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with ``prefix``, in key order."""

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; absent ones are fine."""

    def upload(self, key: str, path: Path) -> None:
        """Copy a file into the store."""

    def download(self, key: str, path: Path) -> str:
        """Copy an object into a new file; returns the sha256 of what was written, in hex."""

    def with_patience(self, seconds: float) -> Store:
        """Return the same store with another retry deadline per call."""

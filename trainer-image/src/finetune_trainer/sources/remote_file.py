"""A file of the hub that is read in ranges, as a program reads it from disk."""

from __future__ import annotations

import io
from typing import Final

import stamina
import urllib3

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.sources.https import OUTAGE_PATIENCE_SECONDS, web_client

BLOCK_BYTES: Final = 4 * 1024 * 1024
"""Read ahead, so that a row costs no request of its own."""


class RangeOutageError(Exception):
    """The server did not answer properly; it may a moment later."""


class RemoteFile(io.RawIOBase):
    """A file behind a URL whose contents never change, such as one of a commit. Needs no credentials; opened anew in each process."""

    def __init__(self, url: str, size: int) -> None:
        super().__init__()
        self._url, self._size, self._at = url, size, 0
        self._http: urllib3.PoolManager | None = None

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Return the place the next byte is read from."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Go to a place; nothing is read."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = min(max(start + offset, 0), self._size)
        return self._at

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # every writable buffer is taken
        """Read from the server; waits for one that is away up to five minutes.

        Raises :class:`TrainerError`: HubUnavailable when it stays away, DataError when it refuses.
        """
        count = min(len(buffer), self._size - self._at)
        if count <= 0:
            return 0
        try:
            for attempt in stamina.retry_context(on=RangeOutageError, attempts=None, timeout=OUTAGE_PATIENCE_SECONDS, wait_max=15.0):
                with attempt:
                    buffer[:count] = self._range(self._at, count)
        except RangeOutageError as error:
            raise TrainerError(
                FailureClass.HUB_UNAVAILABLE,
                f"dataset.uri: {self._url} did not answer within {OUTAGE_PATIENCE_SECONDS:.0f} s: {error}",
            ) from error
        self._at += count
        return count

    def _range(self, start: int, length: int) -> bytes:
        self._http = self._http or web_client(self._url)
        headers = {"Range": f"bytes={start}-{start + length - 1}"}
        try:
            answer = self._http.request("GET", self._url, headers=headers, preload_content=False)
            try:
                data = bytes(answer.read(length)) if answer.status == 206 else b""
            finally:
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise RangeOutageError(f"{type(error).__name__}: {error}"[:300]) from error
        if answer.status in (401, 403, 404, 410):
            raise TrainerError(
                FailureClass.DATA,
                f"dataset.uri: the hub answers {answer.status} for {self._url}: only public datasets can be streamed; set "
                "dataset.streaming to false",
            )
        if answer.status != 206 or len(data) != length:
            raise RangeOutageError(f"status {answer.status}, {len(data)} of {length} bytes")
        return data


def open_remote(url: str, size: int) -> io.BufferedReader:
    """Open a file for reading, with a buffer."""
    return io.BufferedReader(RemoteFile(url, size), BLOCK_BYTES)

"""ZIP archives of rows and images (``vlm-zip``): read in place, never unpacked, so that no name in one can reach outside of it."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import Row, data_error, jsonl_rows

ROWS: Final = "train.jsonl"
"""Name of the rows, at the root (E-07)."""
MAX_MEMBER: Final = 64 * 2**20
"""Bytes of an image; of the rows any number, they are read line by line."""
MAX_RATIO: Final = 200
"""Unpacked bytes for each packed one from which an archive is taken for a bomb; images do not shrink, and text shrinks 20 times at most."""
SMALL: Final = 2**20
"""Bytes up to which the ratio does not count."""
ENCRYPTED: Final = 0x1
DAMAGE: Final = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError)
"""What reading a damaged or encrypted archive raises."""


class Archive:
    """One archive, checked when it is opened: names, rows at its root, sizes that can be."""

    def __init__(self, path: Path, name: str) -> None:
        """``name`` is what messages call it. Raises :class:`TrainerError` (DataError)."""
        self.name = name
        try:
            self._zip = zipfile.ZipFile(path)
        except DAMAGE as error:
            raise data_error(f"{name}: not a readable ZIP archive ({error})") from error
        self._members = {info.filename: info for info in self._zip.infolist() if not info.is_dir()}
        try:
            self._check_members()
        except TrainerError:
            self._zip.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._zip.close()

    def rows(self, rejects: Rejects) -> Generator[Row, None, None]:
        """Yield the rows; those that cannot be read go to ``rejects``, which may raise."""
        try:
            with self._zip.open(self._members[ROWS]) as stream:
                yield from jsonl_rows(stream, f"{self.name}, {ROWS}", rejects)
        except DAMAGE as error:
            raise data_error(f"{self.name}, {ROWS}: cannot be read ({error})") from error

    def read(self, where: str, reference: str) -> bytes:
        """Bytes of an image. ``where`` names row and field. Raises :class:`TrainerError` (DataError) when it is not there or damaged."""
        info = self._members.get(reference.removeprefix("./"))
        if info is None:
            raise data_error(f"{where}: {self.name} has no file {reference!r}")
        if info.file_size > MAX_MEMBER:
            raise data_error(f"{where}: {reference} has {info.file_size} bytes; images of up to {MAX_MEMBER} are read")
        try:
            return self._zip.read(info)
        except DAMAGE as error:
            raise data_error(f"{where}: {reference} cannot be read from {self.name} ({error})") from error

    def _check_members(self) -> None:
        for info in self._members.values():
            self._check(info)
        if ROWS not in self._members:
            raise data_error(f"{self.name}: there is no {ROWS} at its root{self._elsewhere()}")

    def _check(self, info: zipfile.ZipInfo) -> None:
        parts = info.filename.replace("\\", "/").split("/")
        if ".." in parts or parts[0] == "" or ":" in parts[0]:
            raise data_error(f"{self.name}: the name {info.filename!r} leads outside of the archive")
        if info.flag_bits & ENCRYPTED:
            raise data_error(f"{self.name}: {info.filename} is encrypted; make the archive without a password")
        if info.file_size > max(SMALL, MAX_RATIO * info.compress_size):
            raise data_error(
                f"{self.name}: {info.filename} would grow from {info.compress_size} to {info.file_size} bytes: refused as a ZIP bomb"
            )

    def _elsewhere(self) -> str:
        found = next((name for name in self._members if name.endswith(f"/{ROWS}")), None)
        if found is None:
            return "; it holds the rows, the images lie beside it"
        return f", but {found}; pack the content of the directory, not the directory: cd {found.rpartition('/')[0]} && zip -r ../data.zip ."

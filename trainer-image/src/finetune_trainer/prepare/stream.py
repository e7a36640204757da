"""Rows of a stream by their position, which alone decides which row it is: so a resumed run goes on exactly where it stood.

A stream is an endless row of windows. A window holds the next :data:`WINDOW` raw rows of the files in an order that the seed gives, and
gives them out in an order that the seed gives, too; after the last file the first comes again. Whoever asks for a position passes over the
raw rows before its window without reading what is in them, and holds one window of raw rows at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeAlias

import numpy as np

from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.rows import JSONL, TEXT, Row, data_error, decoded, json_row
from finetune_trainer.protocol import DataStream, StreamFile
from finetune_trainer.sources.remote_file import open_remote

KINDS: Final = frozenset({*JSONL, *TEXT, ".parquet"})
"""Files that can be read row by row."""
WINDOW: Final = 2048
"""Raw rows that are shuffled among each other."""
STREAM: Final = 6
"""Second word of the seed, apart from those of :mod:`finetune_trainer.prepare.merging`."""
RawRow: TypeAlias = Row | TrainerError
"""A row as it was written, or what is wrong with it."""


class RawReader(Protocol):
    """A file on the way from its first row to its last."""

    def skip(self, count: int) -> int:
        """Pass over at most ``count`` rows without reading what is in them; returns how many there were."""

    def take(self, count: int) -> list[RawRow]:
        """Read at most ``count`` rows."""


def open_rows(file: StreamFile) -> RawReader:
    """Open a file at its first row."""
    return ParquetReader(file) if Path(file.name).suffix == ".parquet" else LineReader(file)


class LineReader:
    """JSONL, or one text per line; empty lines are no rows."""

    def __init__(self, file: StreamFile) -> None:
        self._name, self._is_text = file.name, Path(file.name).suffix in TEXT
        self._lines = enumerate(open_remote(file.url, file.size), start=1)

    def skip(self, count: int) -> int:
        """Pass over lines."""
        skipped = 0
        while skipped < count and self._next() is not None:
            skipped += 1
        return skipped

    def take(self, count: int) -> list[RawRow]:
        """Read lines."""
        found: list[RawRow] = []
        while len(found) < count and (line := self._next()) is not None:
            found.append(self._row(*line))
        return found

    def _next(self) -> tuple[int, bytes] | None:
        return next(((number, line) for number, line in self._lines if line.strip()), None)

    def _row(self, number: int, line: bytes) -> RawRow:
        where = f"{self._name}, line {number}"
        try:
            text = decoded(line, self._name, number)
            return Row(where, {"text": text}) if self._is_text else json_row(text, where)
        except TrainerError as error:
            return error


class ParquetReader:
    """Parquet: groups of rows that are passed over by their number alone, and read one at a time."""

    def __init__(self, file: StreamFile) -> None:
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        self._name = file.name
        try:
            self._file = pq.ParquetFile(open_remote(file.url, file.size))
        except (pa.ArrowInvalid, OSError) as error:
            raise data_error(f"{file.name}: not a readable Parquet file ({error})") from error
        self._group = self._within = self._number = 0
        self._table: Any = None

    def skip(self, count: int) -> int:
        """Pass over whole groups, and rows of one."""
        passed = 0
        while passed < count and (rest := self._rest()) is not None:
            step = min(rest, count - passed)
            self._advance(step)
            passed += step
        return passed

    def take(self, count: int) -> list[RawRow]:
        """Read rows of as many groups as it takes."""
        found: list[RawRow] = []
        while len(found) < count and (rest := self._rest()) is not None:
            step = min(rest, count - len(found))
            if self._table is None:
                self._table = self._file.read_row_group(self._group)
            number = self._number
            rows = self._table.slice(self._within, step).to_pylist()
            found += [Row(f"{self._name}, row {at}", fields) for at, fields in enumerate(rows, start=number + 1)]
            self._advance(step)
        return found

    def _rest(self) -> int | None:
        """Rows left in the present group, which has some; None at the end."""
        while self._group < self._file.num_row_groups:
            rest = int(self._file.metadata.row_group(self._group).num_rows) - self._within
            if rest > 0:
                return rest
            self._group, self._within, self._table = self._group + 1, 0, None
        return None

    def _advance(self, count: int) -> None:
        self._within += count
        self._number += count


class RowStream:
    """The rows of a stream by position, from 0 without end."""

    def __init__(self, stream: DataStream, seed: int, *, reshuffle: bool, window: int = WINDOW) -> None:
        self._files, self._seed, self._reshuffle, self._size = stream.files, seed, reshuffle, window
        self._window: list[RawRow] | None = None
        self._start = 0
        """Position of the first row of the present window."""
        self._restart()

    def first(self) -> Iterator[RawRow]:
        """Yield the rows of the first file from its beginning: they decide how all are read."""
        reader = open_rows(self._files[0])
        while batch := reader.take(16):
            yield from batch

    def rows(self, positions: Sequence[int]) -> list[RawRow]:
        """Return rows by position; ever higher ones cost least."""
        return [self._row(position) for position in positions]

    def _row(self, position: int) -> RawRow:
        if position < self._start:
            self._restart()
        while True:
            if self._window is not None and position < self._start + len(self._window):
                return self._window[position - self._start]
            self._leave_window()
            if position >= self._start + self._size:
                self._pass(self._reader_skip(self._size))
            else:
                self._window = self._read_window()

    def _restart(self) -> None:
        self._start, self._window = 0, None
        self._begin_epoch(0)

    def _begin_epoch(self, epoch: int) -> None:
        self._epoch, self._number, self._seen = epoch, 0, 0
        order = np.random.default_rng([self._seed, STREAM, self._turn]).permutation(len(self._files))
        self._left = [self._files[index] for index in order]
        self._reader: RawReader | None = None

    @property
    def _turn(self) -> int:
        return self._epoch if self._reshuffle else 0

    def _leave_window(self) -> None:
        """Go behind the window that is held."""
        if self._window is not None:
            count, self._window = len(self._window), None
            self._pass(count)

    def _pass(self, count: int) -> None:
        """Count a window of ``count`` rows as gone; a short one is the last of its epoch."""
        self._start += count
        self._seen += count
        self._number += 1
        if count < self._size:
            if self._seen == 0:
                raise data_error("dataset.uri: no rows to train on")
            self._begin_epoch(self._epoch + 1)

    def _read_window(self) -> list[RawRow]:
        rows: list[RawRow] = []
        while len(rows) < self._size and (reader := self._open()) is not None:
            found = reader.take(self._size - len(rows))
            rows += found
            if not found:
                self._reader = None
        order = np.random.default_rng([self._seed, STREAM, self._turn, self._number]).permutation(len(rows))
        return [rows[index] for index in order]

    def _reader_skip(self, count: int) -> int:
        passed = 0
        while passed < count and (reader := self._open()) is not None:
            found = reader.skip(count - passed)
            passed += found
            if not found:
                self._reader = None
        return passed

    def _open(self) -> RawReader | None:
        if self._reader is None and self._left:
            self._reader = open_rows(self._left.pop(0))
        return self._reader

"""The rows of one source, from its files to canonical rows ready to be encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

from finetune_api.models.sources import DataSource
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.formats.convert import convert
from finetune_trainer.prepare.formats.layout import Layout, find_layout
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import DataFile, Row, read_rows
from finetune_trainer.prepare.wrapping import Wrapping


class ReadRow(NamedTuple):
    """A row as it was found and as methods take it."""

    raw: Row
    canonical: Row


class Reader:
    """Reads one source; its first row decides how ``auto`` reads them all."""

    def __init__(self, source: DataSource, method: str, wrapping: Wrapping, rejects: Rejects) -> None:
        self._source, self._method = source, method
        self._wrapping, self._rejects = wrapping, rejects
        self.layout: Layout | None = None
        """Known once a row was read."""

    def read(self, files: Iterable[DataFile], limit: int | None = None) -> Iterator[ReadRow]:
        """Yield the usable rows of all files in their order, at most ``limit``; the others go to the rejects, which may raise."""
        raw = (row for file in files for row in read_rows(file, self._rejects))
        return islice(self.convert(raw), limit)

    def convert(self, rows: Iterable[Row]) -> Iterator[ReadRow]:
        """Yield the usable ones of raw rows."""
        for row in rows:
            try:
                canonical = self.canonical(row)
            except TrainerError as error:
                self._rejects.add(error)
            else:
                yield ReadRow(row, canonical)

    def canonical(self, row: Row) -> Row:
        """One row in its canonical form. Raises :class:`TrainerError` (DataError) for one that does not fit."""
        self.layout = self.layout or find_layout(row, self._source, self._method)
        found = convert(row, self.layout, self._method)
        if self._method != "grpo":
            return self._wrapping.wrap(found)
        # Whatever else a task has is for reward functions, as it is, also where it is named like an answer.
        asked = self._wrapping.wrap(Row(found.where, {"prompt": found.fields["prompt"]}))
        return Row(found.where, {**found.fields, **asked.fields})

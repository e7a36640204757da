"""The rows of one source, from its files to canonical rows ready to be encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice
from typing import NamedTuple

from finetune_api.models.sources import DataSource
from finetune_trainer.errors import TrainerError, configuration_error
from finetune_trainer.prepare.archive import Archive
from finetune_trainer.prepare.formats.convert import convert
from finetune_trainer.prepare.formats.images import attach_images, refuse_images
from finetune_trainer.prepare.formats.layout import TEXT, Layout, find_layout
from finetune_trainer.prepare.images import Directory, Folder, Images
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import ZIP, DataFile, Row, data_error, kind_of, read_rows
from finetune_trainer.prepare.wrapping import Wrapping
from finetune_trainer.vision import ZIP_FORMAT


class ReadRow(NamedTuple):
    """A row as it was found and as methods take it."""

    raw: Row
    canonical: Row


class Reader:
    """Reads one source; its first row decides how ``auto`` reads them all."""

    def __init__(self, source: DataSource, method: str, wrapping: Wrapping, rejects: Rejects, images: Images | None = None) -> None:
        """``images`` takes those of the rows; None for a model that learns from texts alone."""
        self._source, self._method = source, method
        self._wrapping, self._rejects = wrapping, rejects
        self._images = images
        self.layout: Layout | None = None
        """Known once a row was read."""

    def read(self, files: Iterable[DataFile], limit: int | None = None) -> Iterator[ReadRow]:
        """Yield the usable rows of all files in their order, at most ``limit``; the others go to the rejects, which may raise."""
        return islice((row for file in files for row in self._read(file)), limit)

    def _read(self, file: DataFile) -> Iterator[ReadRow]:
        if kind_of(file.path) == ZIP:
            with Archive(file.path, file.name) as archive, closing(archive.rows(self._rejects)) as rows:
                yield from self.convert(rows, archive)
        elif self._source.format == ZIP_FORMAT:
            raise data_error(f"{file.name}: dataset.format is {ZIP_FORMAT}, and this is no ZIP archive")
        else:
            yield from self.convert(read_rows(file, self._rejects), Directory(file.path.parent))

    def convert(self, rows: Iterable[Row], folder: Folder) -> Iterator[ReadRow]:
        """Yield the usable ones of raw rows, whose images lie in ``folder``."""
        for row in rows:
            try:
                canonical = self.canonical(row)
                if self._images is not None:
                    canonical = attach_images(row, canonical, self._images, folder)
            except TrainerError as error:
                self._rejects.add(error)
            else:
                yield ReadRow(row, canonical)

    def canonical(self, row: Row) -> Row:
        """One row in its canonical form, images as they are named. Raises :class:`TrainerError` (DataError) for one that does not fit."""
        found = self._canonical(row)
        return refuse_images(found) if self._images is None else found

    def _canonical(self, row: Row) -> Row:
        self.layout = self.layout or self._find_layout(row)
        found = convert(row, self.layout, self._method)
        if self._method != "grpo":
            return self._wrapping.wrap(found)
        # Whatever else a task has is for reward functions, as it is, also where it is named like an answer.
        asked = self._wrapping.wrap(Row(found.where, {"prompt": found.fields["prompt"]}))
        return Row(found.where, {**found.fields, **asked.fields})

    def _find_layout(self, row: Row) -> Layout:
        layout = find_layout(row, self._source, self._method)
        # Of a format that is written the API server has judged.
        if layout.format == TEXT and self._source.format in (None, "auto") and self._wrapping.fields:
            asked = ", ".join(self._wrapping.fields)
            raise configuration_error(
                f"{row.where}: the row is a text, and text has no prompt: leave out dataset.{asked}, or write rows of another format "
                "(texts of dataset.additional that need none of it say format: text)"
            )
        return layout

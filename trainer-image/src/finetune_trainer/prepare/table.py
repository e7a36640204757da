"""Rows on disk: an Arrow stream while they are made, a directory of :mod:`datasets` when they are done."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasets import Dataset

from finetune_trainer.prepare.encoded import Ready
from finetune_trainer.prepare.purpose import Purpose

TOKENS: Final = pa.list_(pa.int32())
ROW_SCHEMA: Final = pa.schema([("input_ids", TOKENS), ("labels", TOKENS)])
LENGTH: Final = pa.field("length", pa.int32())
"""Tokens the model reads for a row, where no column holds them as they are."""
SCHEMAS: Final[Mapping[Purpose, pa.Schema]] = {
    "tokens": ROW_SCHEMA,
    "text": ROW_SCHEMA,
    "preference": pa.schema([("prompt_ids", TOKENS), ("chosen_ids", TOKENS), ("rejected_ids", TOKENS), LENGTH]),
    "verdict": pa.schema([("prompt_ids", TOKENS), ("completion_ids", TOKENS), ("label", pa.bool_()), LENGTH]),
    "task": pa.schema([("row", pa.string()), LENGTH]),
}
"""Columns of prepared rows, by what the method makes of them."""
SIGHT_SCHEMA: Final = ROW_SCHEMA.append(pa.field("images", TOKENS))
"""Columns of rows of a vision-language model: beside the tokens, the places of their images in the table of images."""
PACKED_SCHEMA: Final = ROW_SCHEMA.append(pa.field("seq_lengths", TOKENS))
CHUNK: Final = 1000
"""Sequences per Arrow batch."""
FILE_MODE: Final = 0o644


class TableWriter:
    """Appends batches to an Arrow stream file that :func:`open_table` maps into memory."""

    def __init__(self, path: Path, schema: pa.Schema = ROW_SCHEMA) -> None:
        self._sink = pa.OSFile(str(path), "wb")
        self._writer = pa.ipc.new_stream(self._sink, schema)
        self._schema = schema

    def write(self, **columns: Sequence[object]) -> None:
        """Append one batch; every column of the schema has one value per row."""
        arrays = [pa.array(columns[field.name], type=field.type) for field in self._schema]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))

    def write_rows(self, rows: Sequence[Ready]) -> None:
        """Append encoded rows."""
        values = [row.columns() for row in rows]
        if values:
            self.write(**{name: [row[name] for row in values] for name in self._schema.names})

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
        self._sink.close()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def open_table(path: Path) -> Dataset:
    """Map a stream file into memory as a data set."""
    from datasets import Dataset

    return Dataset.from_file(str(path))


def write_packed(source: Dataset, bins: Sequence[Sequence[int]], path: Path) -> None:
    """Write one sequence per bin: the rows' tokens one after the other, and their lengths."""
    with TableWriter(path, PACKED_SCHEMA) as writer:
        for chunk in _chunks(bins):
            wanted = source.select([row for rows in chunk for row in rows])
            ids, labels = wanted["input_ids"][:], wanted["labels"][:]
            joined: dict[str, list[list[int]]] = {"input_ids": [], "labels": [], "seq_lengths": []}
            at = 0
            for rows in chunk:
                parts = range(at, at + len(rows))
                at += len(rows)
                joined["input_ids"].append([token for part in parts for token in ids[part]])
                joined["labels"].append([token for part in parts for token in labels[part]])
                joined["seq_lengths"].append([len(ids[part]) for part in parts])
            writer.write(**joined)


def save(dataset: Dataset, directory: Path) -> None:
    """Write a data set as a directory of plain files that any user may read."""
    dataset.save_to_disk(directory)
    for folder, _, files in os.walk(directory):
        for name in files:
            Path(folder, name).chmod(FILE_MODE)


def lengths(dataset: Dataset) -> NDArray[np.int64]:
    """Tokens of each row, without reading the tokens."""
    if LENGTH.name in dataset.column_names:
        return np.asarray(dataset.with_format("arrow")[LENGTH.name][:], dtype=np.int64)
    column = dataset.with_format("arrow")["input_ids"][:]
    return np.asarray(pa.compute.list_value_length(column), dtype=np.int64)


def rows_without_images(dataset: Dataset) -> NDArray[np.int64]:
    """Indices of the rows that are texts alone."""
    if "images" not in dataset.column_names:
        return np.arange(len(dataset), dtype=np.int64)
    counts = pa.compute.list_value_length(dataset.with_format("arrow")["images"][:])
    return np.flatnonzero(np.asarray(counts) == 0).astype(np.int64)


def _chunks(bins: Sequence[Sequence[int]]) -> Iterator[Sequence[Sequence[int]]]:
    for start in range(0, len(bins), CHUNK):
        yield bins[start : start + CHUNK]

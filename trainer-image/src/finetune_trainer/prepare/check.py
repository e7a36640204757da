"""A light look at the data, for preflight: the first rows only, no tokenizer, nothing written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from finetune_api.models.spec import Dataset, FineTuneJobSpec
from finetune_trainer.prepare.examples import Example, Format, detect_format, parse
from finetune_trainer.prepare.rows import DataFile, Row, data_error, data_files, read_rows


class ParsedRow(NamedTuple):
    """A raw row and the example it stands for."""

    row: Row
    example: Example


class RowCheck(NamedTuple):
    """What the first rows look like."""

    format: Format
    columns: list[str]
    rows: int
    """Rows read; all there are when fewer than the limit."""


def parse_rows(files: Iterable[DataFile], dataset: Dataset, limit: int | None = None) -> Iterator[ParsedRow]:
    """Yield the rows of all files, at most ``limit``; the first row decides how ``auto`` reads them all.

    Raises :class:`TrainerError` (DataError) at the first row that does not fit.
    """
    kind: Format | None = None
    for row in islice((row for file in files for row in read_rows(file)), limit):
        kind = kind or detect_format(row, dataset)
        yield ParsedRow(row, parse(row, kind, dataset))


def check_rows(files: Sequence[Path], spec: FineTuneJobSpec, limit: int = 1000) -> RowCheck:
    """Read at most ``limit`` rows as training would.

    Raises :class:`TrainerError` (DataError) naming file, line, field and what was expected; also when there is no row at all.
    """
    first: Row | None = None
    count = 0
    for parsed in parse_rows(data_files(files), spec.dataset, limit):
        first = first or parsed.row
        count += 1
    if first is None:
        raise data_error(f"dataset.uri: {', '.join(path.name for path in files) or 'no file'} holds no rows")
    return RowCheck(detect_format(first, spec.dataset), [str(name) for name in first.fields], count)

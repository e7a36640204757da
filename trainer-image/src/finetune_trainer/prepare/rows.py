"""Raw rows of data files, each with the place it came from, so that every complaint names file and line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.rejects import Rejects

JSONL: Final = frozenset({".jsonl", ".ndjson"})
TEXT: Final = frozenset({".txt", ".text"})
ZIP: Final = ".zip"
KNOWN: Final = JSONL | TEXT | {".json", ".csv", ".parquet", ZIP}
MAX_CSV_FIELD: Final = 2**31 - 1
"""Longest CSV field in characters; the library's own limit of 128 KiB is shorter than many documents."""


def data_error(message: str) -> TrainerError:
    """Build the error of data that cannot be trained on."""
    return TrainerError(FailureClass.DATA, message)


class Row(NamedTuple):
    """One raw row."""

    where: str
    """Place for people: ``train.jsonl, line 7``."""
    fields: Mapping[str, object]


class DataFile(NamedTuple):
    """A file to read and the name it is called by in messages."""

    path: Path
    name: str


def data_files(paths: Iterable[Path]) -> list[DataFile]:
    """Expand directories into their data files, in the order of their names; other files there (README, .git) are passed over.

    Raises :class:`TrainerError` (DataError) for a path that does not exist and a directory without data files.
    """
    found: list[DataFile] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in KNOWN)
            if not inside:
                raise data_error(f"dataset.uri: the directory {path.name} has no data file; expected one of {', '.join(sorted(KNOWN))}")
            found += [DataFile(file, str(file.relative_to(path))) for file in inside]
        elif path.is_file():
            found.append(DataFile(path, path.name))
        else:
            raise data_error(f"dataset.uri: there is no file {path.name}")
    return found


def read_rows(file: DataFile, rejects: Rejects) -> Iterator[Row]:
    """Yield the rows of a file in their order; the kind of file follows from its ending, else from its first bytes.

    Rows that cannot be read go to ``rejects``, which may raise. Raises :class:`TrainerError` (DataError) for a file that cannot be read.
    """
    kind = kind_of(file.path)
    if kind in JSONL:
        with file.path.open("rb") as stream:
            yield from jsonl_rows(stream, file.name, rejects)
    elif kind == ".json":
        yield from _json(file, rejects)
    elif kind == ".csv":
        yield from _csv(file, rejects)
    elif kind == ".parquet":
        yield from _parquet(file)
    else:
        yield from _text(file, rejects)


def kind_of(path: Path) -> str:
    """Ending that says how a file is read: its own, else one guessed from its first bytes."""
    return path.suffix.lower() if path.suffix.lower() in KNOWN else _sniff(path)


def _sniff(path: Path) -> str:
    """Guess the kind of a file without a known ending, for example a key of a ConfigMap."""
    with path.open("rb") as stream:
        head = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if head.startswith(b"PAR1"):
        return ".parquet"
    if head.startswith(b"PK\x03\x04"):
        return ZIP
    if head.startswith(b"["):
        return ".json"
    return ".jsonl" if head.startswith(b"{") else ".txt"


def _lines(file: DataFile, rejects: Rejects) -> Iterator[tuple[int, str]]:
    with file.path.open("rb") as stream:
        yield from _decoded(stream, file.name, rejects)


def _decoded(stream: Iterable[bytes], name: str, rejects: Rejects) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(stream, start=1):
        try:
            text = decoded(raw, name, number)
        except TrainerError as error:
            rejects.add(error)
            continue
        yield number, text


def decoded(raw: bytes, name: str, number: int) -> str:
    """The text of a line of a file, without its end; raises :class:`TrainerError` (DataError)."""
    try:
        text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        raise data_error(f"{name}, line {number}: not UTF-8 text (byte {error.start}); save the file as UTF-8") from error
    return text.rstrip("\r\n")


def jsonl_rows(stream: Iterable[bytes], name: str, rejects: Rejects) -> Iterator[Row]:
    """Yield the rows of lines of JSON; ``name`` is what messages call the file."""
    for number, line in _decoded(stream, name, rejects):
        if not line.strip():
            continue
        try:
            row = json_row(line, f"{name}, line {number}")
        except TrainerError as error:
            rejects.add(error)
            continue
        yield row


def json_row(line: str, where: str) -> Row:
    """The row of a line of JSON; raises :class:`TrainerError` (DataError)."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise data_error(f"{where}: not valid JSON ({error.msg} at column {error.colno}); expected one object per line") from error
    return _object(where, value)


def _json(file: DataFile, rejects: Rejects) -> Iterator[Row]:
    try:
        values = json.loads("\n".join(line for _, line in _lines(file, Rejects(skip=False))))
    except json.JSONDecodeError as error:
        raise data_error(f"{file.name}, line {error.lineno}: not valid JSON ({error.msg}); expected a list of objects") from error
    if not isinstance(values, list):
        raise data_error(f"{file.name}: expected a list of objects, found {_kind(values)}; for one object per line name the file .jsonl")
    for number, value in enumerate(values, start=1):
        try:
            row = _object(f"{file.name}, row {number}", value)
        except TrainerError as error:
            rejects.add(error)
            continue
        yield row


def _object(where: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise data_error(f"{where}: expected an object with named fields, found {_kind(value)}")
    return Row(where, value)


def _csv(file: DataFile, rejects: Rejects) -> Iterator[Row]:
    csv.field_size_limit(MAX_CSV_FIELD)
    # A line that is left out could be the middle of a field: only whole rows are.
    reader = csv.DictReader((f"{line}\n" for _, line in _lines(file, Rejects(skip=False))), strict=True)
    try:
        for fields in reader:
            where = f"{file.name}, line {reader.line_num}"
            if None in fields or None in fields.values():
                expected = len(reader.fieldnames or ())
                names = ", ".join(reader.fieldnames or ())
                rejects.add(data_error(f"{where}: the row does not have the {expected} values its header names ({names})"))
                continue
            yield Row(where, dict(fields))
    except csv.Error as error:
        raise data_error(f"{file.name}, line {reader.line_num}: not valid CSV ({error})") from error


def _parquet(file: DataFile) -> Iterator[Row]:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        number = 0
        for batch in pq.ParquetFile(file.path).iter_batches(batch_size=1000):
            for fields in batch.to_pylist():
                number += 1
                yield Row(f"{file.name}, row {number}", fields)
    except (pa.ArrowInvalid, OSError) as error:
        raise data_error(f"{file.name}: not a readable Parquet file ({error})") from error


def _text(file: DataFile, rejects: Rejects) -> Iterator[Row]:
    for number, line in _lines(file, rejects):
        if line.strip():
            yield Row(f"{file.name}, line {number}", {"text": line})


def _kind(value: object) -> str:
    names = {
        dict: "an object",
        list: "a list",
        str: "a text",
        bool: "true or false",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)

"""Reading raw rows of every kind of file (E-01, E-06, D-01), and naming the place of what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from finetune_api.contract.failures import FailureClass
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import DataFile, Row, data_files, read_rows


def rows_of(path: Path, content: str | bytes) -> list[Row]:
    """Write a file and read it."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_rows(DataFile(path, path.name), Rejects(skip=False)))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"text": "one"}\n\n{"text": "two"}\n', [("a.jsonl, line 1", "one"), ("a.jsonl, line 3", "two")]),
        ("a.ndjson", '{"text": "one"}', [("a.ndjson, line 1", "one")]),
        ("a.json", '[{"text": "one"},\n {"text": "two"}]', [("a.json, row 1", "one"), ("a.json, row 2", "two")]),
        ("a.csv", 'text,n\none,1\n"two\nlines",2\n', [("a.csv, line 2", "one"), ("a.csv, line 4", "two\nlines")]),
        ("a.txt", "one\r\n\ntwo", [("a.txt, line 1", "one"), ("a.txt, line 3", "two")]),
        ("key", '{"text": "one"}', [("key, line 1", "one")]),
        ("key", '\n [{"text": "one"}]', [("key, row 1", "one")]),
        ("key", "one", [("key, line 1", "one")]),
        ("bom.jsonl", b'\xef\xbb\xbf{"text": "one"}', [("bom.jsonl, line 1", "one")]),
        (
            "unicode.jsonl",
            '{"text": "\u2028 a line"}',
            [("unicode.jsonl, line 1", "\u2028 a line")],
        ),
    ],
)
def test_every_kind_of_file_is_read(tmp_path: Path, name: str, content: str | bytes, expected: list[tuple[str, str]]) -> None:
    """The ending decides, else the first bytes (a ConfigMap's key has any name)."""
    assert [(row.where, row.fields["text"]) for row in rows_of(tmp_path / name, content)] == expected


def test_parquet_is_read(tmp_path: Path) -> None:
    """Also when only its first bytes say so."""
    for name in ("a.parquet", "blob"):
        pq.write_table(pa.table({"text": ["one", "two"]}), tmp_path / name)
        rows = list(read_rows(DataFile(tmp_path / name, name), Rejects(skip=False)))
        assert [(row.where, row.fields) for row in rows] == [(f"{name}, row 1", {"text": "one"}), (f"{name}, row 2", {"text": "two"})]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.jsonl",
            '{"text": "one"}\n{"text": }\n',
            "a.jsonl, line 2: not valid JSON (Expecting value at column 10); expected one object",
        ),
        ("a.jsonl", "[1]\n", "a.jsonl, line 1: expected an object with named fields, found a list"),
        ("a.jsonl", b'{"text": "one"}\n\xff\n', "a.jsonl, line 2: not UTF-8 text (byte 0); save the file as UTF-8"),
        ("a.json", '[{"text": "one"},\n{"text"]', "a.json, line 2: not valid JSON"),
        ("a.json", '{"text": "one"}', "a.json: expected a list of objects, found an object; for one object per line name the file .jsonl"),
        ("a.json", '["one"]', "a.json, row 1: expected an object with named fields, found a text"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv, line 3: the row does not have the 2 values its header names (a, b)"),
        ("a.csv", "a,b\n1\n", "a.csv, line 2: the row does not have the 2 values its header names (a, b)"),
        ("a.parquet", "no parquet at all", "a.parquet: not a readable Parquet file"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    """File, line, what was found and what was expected (E-01)."""
    with pytest.raises(TrainerError) as raised:
        rows_of(tmp_path / name, content)
    assert raised.value.failure_class is FailureClass.DATA
    assert raised.value.message.startswith(said)


def test_directories_are_expanded_in_the_order_of_names(tmp_path: Path) -> None:
    """Only data files count; each keeps its path in the directory as its name."""
    for name in ("b.jsonl", "a/z.csv", "a/b.txt", "README.md", ".gitattributes"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n")
    assert [file.name for file in data_files([tmp_path])] == ["a/b.txt", "a/z.csv", "b.jsonl"]
    assert [file.name for file in data_files([tmp_path / "b.jsonl"])] == ["b.jsonl"]


def test_a_directory_without_data_is_refused(tmp_path: Path) -> None:
    """The endings that would do are named."""
    (tmp_path / "README.md").write_text("nothing")
    with pytest.raises(TrainerError, match=r"has no data file; expected one of \.csv, \.json, \.jsonl"):
        data_files([tmp_path])


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(TrainerError, match=r"there is no file gone\.jsonl"):
        data_files([tmp_path / "gone.jsonl"])


@pytest.mark.parametrize(
    ("name", "content", "good", "said"),
    [
        ("a.jsonl", b'{"text": "one"}\n{"text": }\n[1]\n\xff\n{"text": "two"}\n', 2, "a.jsonl, line 2: not valid JSON"),
        ("a.json", b'[{"text": "one"}, 3]', 1, "a.json, row 2: expected an object"),
        ("a.csv", b"text,n\none,1\ntwo\n", 1, "a.csv, line 3: the row does not have the 2 values"),
        ("a.txt", b"one\n\xff\n", 1, "a.txt, line 2: not UTF-8"),
    ],
)
def test_malformed_rows_can_be_left_out(tmp_path: Path, name: str, content: bytes, good: int, said: str) -> None:
    """E-01: counted, and the first one is named."""
    (tmp_path / name).write_bytes(content)
    rejects = Rejects(skip=True)
    assert len(list(read_rows(DataFile(tmp_path / name, name), rejects))) == good
    assert rejects.count == (3 if name == "a.jsonl" else 1)
    assert rejects.first.startswith(said)

"""Images of rows: where they are, what is wrong with them, and archives that hold them."""

from __future__ import annotations

import base64
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from PIL import Image

from finetune_api.models.sources import DataSource
from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare import images as images_module
from finetune_trainer.prepare.check import Part, check_rows
from finetune_trainer.prepare.images import Directory, ImageCheck, ImageStore, decode, scale_down
from finetune_trainer.prepare.reading import Reader, ReadRow
from finetune_trainer.prepare.rejects import Rejects
from finetune_trainer.prepare.rows import data_files
from finetune_trainer.prepare.wrapping import Wrapping
from tests.unit.finetune_trainer.prepare.conftest import MakeSpec

ASK = {"type": "text", "text": "What is it?"}
ANSWER = {"role": "assistant", "content": "A square."}


def png(size: tuple[int, int] = (40, 30), colour: tuple[int, int, int] = (200, 30, 30)) -> bytes:
    """A picture."""
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, format="PNG")
    return stream.getvalue()


def shown(*parts: Mapping[str, Any], **columns: Any) -> dict[str, Any]:
    """A row whose question has some images."""
    return {"messages": [{"role": "user", "content": [*parts, ASK]}, ANSWER], **columns}


def lines(*rows: Mapping[str, Any]) -> bytes:
    """JSONL."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    """A ZIP of files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in files.items():
            target.writestr(name, content)
    return path


def read(path: Path, *, form: str = "auto", offline: bool = False, skip: bool = False, method: str = "sft") -> list[ReadRow]:
    """Rows of a file for a vision-language model."""
    source = DataSource.model_validate({"uri": "pvc://rows/data", "format": form})
    store = ImageStore(None, max_pixels=None, offline=offline)
    reader = Reader(source, method, Wrapping(has_chat_template=True), Rejects(skip=skip), store)
    return list(reader.read(data_files([path])))


def refusal(read_rows: Callable[[], object]) -> str:
    """The sentence of a DataError."""
    with pytest.raises(TrainerError) as caught:
        read_rows()
    assert caught.value.failure_class == "DataError"
    return caught.value.message


def content(row: ReadRow, turn: int = 0, field: str = "messages") -> Any:
    """Content of a message of a canonical row."""
    turns = row.canonical.fields[field]
    assert isinstance(turns, list)
    return turns[turn]["content"]


def test_an_archive_with_rows_and_images(tmp_path: Path) -> None:
    """E-07: rows at the root, images by their names in the archive; equal ones are one."""
    files = {
        "train.jsonl": lines(
            shown({"type": "image", "image": "images/a.png"}),
            shown({"type": "image", "path": "./images/b.png"}),
            {"messages": [{"role": "user", "content": "Only words."}, ANSWER]},
        ),
        "images/a.png": png(),
        "images/b.png": png(),
    }
    rows = read(archive(tmp_path / "data.zip", files), form="vlm-zip")
    assert content(rows[0]) == [{"type": "image", "image": 0}, ASK]
    assert content(rows[1]) == [{"type": "image", "image": 0}, ASK]
    assert content(rows[2]) == "Only words."
    assert rows[1].raw.where == "data.zip, train.jsonl, line 2"


BOMB = b"\0" * (64 * 2**20)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"images/a.png": png()}, "data.zip: there is no train.jsonl at its root"),
        ({"set/train.jsonl": lines(shown())}, "but set/train.jsonl; pack the content of the directory"),
        (
            {"train.jsonl": lines(shown({"type": "image", "image": "b.png"}))},
            "1: messages[0].content[0]: data.zip has no file 'b.png'",
        ),
        (
            {"train.jsonl": lines(shown({"type": "image", "image": "a.png"})), "a.png": b"no"},
            "1: messages[0].content[0]: not an image",
        ),
        ({"train.jsonl": lines(shown({"type": "image", "image": "a.png"})), "a.png": png()[:70]}, "content[0]: the image cannot be read"),
        ({"train.jsonl": lines(shown()), "../a.png": png()}, "'../a.png' leads outside of the archive"),
        ({"train.jsonl": lines(shown()), "/etc/a.png": png()}, "'/etc/a.png' leads outside of the archive"),
        ({"train.jsonl": lines(shown()), "a.bmp": BOMB}, "a.bmp would grow from"),
        ({"train.jsonl": b"{not JSON}"}, "data.zip, train.jsonl, line 1: not valid JSON"),
    ],
)
def test_archives_that_are_refused(tmp_path: Path, files: Mapping[str, bytes], message: str) -> None:
    """AC-37: archive, line and field are named."""
    path = archive(tmp_path / "data.zip", files)
    assert message in refusal(lambda: read(path, form="vlm-zip"))


def test_what_is_no_archive(tmp_path: Path) -> None:
    """E-07: a broken ZIP, another file where a ZIP was announced, an encrypted member."""
    broken = tmp_path / "data.zip"
    broken.write_bytes(b"PK\x03\x04" + b"\0" * 40)
    assert "data.zip: not a readable ZIP archive" in refusal(lambda: read(broken))
    rows = tmp_path / "train.jsonl"
    rows.write_bytes(lines(shown()))
    assert "dataset.format is vlm-zip, and this is no ZIP archive" in refusal(lambda: read(rows, form="vlm-zip"))
    path = archive(tmp_path / "locked.zip", {"train.jsonl": lines(shown())})
    locked = bytearray(path.read_bytes())
    entry = locked.index(b"PK\x01\x02")
    struct.pack_into("<H", locked, entry + 8, 1)
    path.write_bytes(bytes(locked))
    assert "train.jsonl is encrypted" in refusal(lambda: read(path))


URI = "data:image/png;base64," + base64.b64encode(png()).decode()


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": URI, "detail": "low"}},
        {"type": "image_url", "image_url": URI},
        {"type": "input_image", "image_url": URI},
        {"type": "image", "image": URI},
        {"type": "image", "url": URI},
        {"type": "image", "base64": base64.b64encode(png()).decode()},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": base64.b64encode(png()).decode()}},
        {"type": "image", "image": "pictures/a.png"},
        {"type": "image", "path": "pictures/a.png"},
    ],
    ids="-".join,
)
def test_ways_to_write_an_image(tmp_path: Path, part: Mapping[str, Any]) -> None:
    """Parts of OpenAI, Anthropic, transformers and axolotl; a path is one beside the rows."""
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures/a.png").write_bytes(png())
    (tmp_path / "train.jsonl").write_bytes(lines(shown(part)))
    assert content(read(tmp_path / "train.jsonl")[0]) == [{"type": "image", "image": 0}, ASK]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [{"role": "user", "content": "<image>Left or <image>?"}, ANSWER]}, ["i", "Left or ", "i", "?"]),
        ({"conversations": [{"from": "human", "value": "Two."}, {"from": "gpt", "value": "Yes."}]}, ["i", "i", "Two."]),
        ({"messages": [{"role": "user", "content": [{"type": "image"}, ASK, {"type": "image"}]}, ANSWER]}, ["i", "What is it?", "i"]),
        ({"prompt": "Which?", "completion": "Both."}, ["i", "i", "Which?"]),
    ],
)
def test_images_in_a_column(tmp_path: Path, row: Mapping[str, Any], expected: Sequence[str]) -> None:
    """LLaMA-Factory, ms-swift, TRL: marks in texts, bare parts, or neither; in the order of the column."""
    for name, colour in (("a", (1, 2, 3)), ("b", (3, 2, 1))):
        (tmp_path / f"{name}.png").write_bytes(png(colour=colour))
    (tmp_path / "train.jsonl").write_bytes(lines({**row, "images": ["a.png", "b.png"]}))
    (found,) = read(tmp_path / "train.jsonl")
    parts = content(found, field="prompt" if "prompt" in row else "messages")
    assert [part.get("text", "i") for part in parts] == expected
    assert [part["image"] for part in parts if part["type"] == "image"] == [0, 1]


def test_images_inside_parquet(tmp_path: Path) -> None:
    """Bytes in a column, as the hub's data sets have them."""
    struct_of = [{"bytes": png(), "path": "a.png"}]
    table = pa.table({"messages": [[{"role": "user", "content": "?"}, {"role": "assistant", "content": "!"}]], "images": [struct_of]})
    pq.write_table(table, tmp_path / "train.parquet")
    assert content(read(tmp_path / "train.parquet")[0])[0] == {"type": "image", "image": 0}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (shown({"type": "image"}), "images has 0 images, and the messages have places for 1"),
        (shown({"type": "image", "image": "a.png"}, images=["a.png"]), None),
        ({"messages": [{"role": "user", "content": "<image>"}, ANSWER], "images": ["a.png", "a.png"]}, "has 2 images"),
        (shown({"type": "image", "image": "../a.png"}), "'../a.png' leads outside of the data's directory"),
        (shown({"type": "image", "image": "b.png"}), "there is no file 'b.png' beside the rows"),
        (shown({"type": "image", "image": "http://host/a.png"}), "images are fetched from https:// only"),
        (shown({"type": "image", "image": "https://host/a.png"}), "the job is offline"),
        (shown({"type": "image", "image": "data:image/png,abc"}), "must be a data URI like"),
        (shown({"type": "image", "image": "data:image/png;base64,###"}), "not valid base64"),
        (shown({"type": "image", "image": {"height": 3}}), "must say where the image is"),
        (shown({"type": "video", "video": "a.mp4"}), "must be a part with text, or one of type image"),
        ({"text": "Words.", "images": ["a.png"]}, "the row is a text without turns"),
    ],
)
def test_rows_that_are_refused(tmp_path: Path, row: Mapping[str, Any], message: str | None) -> None:
    """AC-37: row, field and value are named."""
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "train.jsonl").write_bytes(lines(row))
    if message is None:
        assert len(content(read(tmp_path / "train.jsonl")[0])) == 3  # the column's image goes before what has its own place
    else:
        assert message in refusal(lambda: read(tmp_path / "train.jsonl", offline=True))


def test_skipped_rows_are_counted(tmp_path: Path, make_spec: MakeSpec) -> None:
    """E-01: onError skip leaves rows with unreadable images out; preflight counts them the same."""
    files = {"train.jsonl": lines(shown({"type": "image", "image": "a.png"}), shown({"type": "image", "image": "b.png"})), "a.png": png()}
    path = archive(tmp_path / "data.zip", files)
    assert len(read(path, skip=True)) == 1
    spec = make_spec(onError="skip")
    checked = check_rows([Part(spec.dataset.parts[0], [path])], spec, images=ImageCheck(offline=False))
    assert (checked.facts.examples, checked.facts.skipped) == (1, 1)
    assert "has no file 'b.png'" in checked.warnings["RowsSkipped"]


@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_a_model_without_eyes_refuses_images(tmp_path: Path, method: str) -> None:
    """B-11: rows with images for a language model, and for methods that learn from texts alone."""
    (tmp_path / "train.jsonl").write_bytes(lines({**shown({"type": "image", "image": "a.png"}), "rejected": "No."}))
    source = DataSource.model_validate({"uri": "pvc://rows/data", "format": "messages"})
    reader = Reader(source, method, Wrapping(), Rejects(skip=False))
    assert "content has an image" in refusal(lambda: list(reader.read(data_files([tmp_path / "train.jsonl"]))))


def test_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageMaxPixels scales down and keeps proportions; what would take too much memory is refused unseen."""
    store = ImageStore(tmp_path / "images.arrow", max_pixels=1200, offline=False)
    (tmp_path / "a.png").write_bytes(png((120, 40)))
    store.take("row", "a.png", Directory(tmp_path))
    assert store.decoded(0).size == (60, 20)
    store.save(tmp_path / "images")
    assert len(store) == 1
    small = decode(png((20, 20)))
    assert scale_down(small, 1200) is small
    monkeypatch.setattr(images_module, "MAX_PIXELS", 100)
    other = ImageStore(None, max_pixels=None, offline=False)
    assert "the image has 120 x 40 pixels" in refusal(lambda: other.take("row", "a.png", Directory(tmp_path)))

"""dataset pack: what goes into the ZIP, and what is refused before it is written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from finetune_cli.__main__ import app
from finetune_cli.errors import CliError
from finetune_cli.packing import pack_directory


def directory(tmp_path: Path, *rows: Any) -> Path:
    """A directory of rows and one image."""
    found = tmp_path / "set"
    (found / "images").mkdir(parents=True)
    (found / "images/a.png").write_bytes(b"png")
    (found / "train.jsonl").write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return found


def shown(image: Any) -> dict[str, Any]:
    """A row with an image."""
    return {"messages": [{"role": "user", "content": [{"type": "image", "image": image}]}, {"role": "assistant", "content": "A square."}]}


def test_the_content_of_the_directory_is_packed(tmp_path: Path) -> None:
    """E-08: rows at the root; what desktops leave behind stays out."""
    found = directory(tmp_path, shown("images/a.png"), shown("https://host/b.png"), {"text": "<image>", "images": ["./images/a.png"]})
    (found / ".DS_Store").write_bytes(b"x")
    (found / "__MACOSX").mkdir()
    (found / "__MACOSX/a.png").write_bytes(b"x")
    result = CliRunner().invoke(app, ["dataset", "pack", str(found)])
    assert result.exit_code == 0, result.output
    assert "3 rows, 1 other files" in result.output
    with zipfile.ZipFile(tmp_path / "set.zip") as archive:
        assert sorted(archive.namelist()) == ["images/a.png", "train.jsonl"]
    assert CliRunner().invoke(app, ["dataset", "pack", str(found)]).exit_code == 0


def test_an_archive_inside_the_directory_is_not_packed_into_itself(tmp_path: Path) -> None:
    found = directory(tmp_path, shown("images/a.png"))
    for _ in range(2):
        assert pack_directory(found, found / "data.zip").files == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (shown("images/b.png"), "line 1: there is no file 'images/b.png'"),
        (shown({"path": "b.png"}), "line 1: there is no file 'b.png'"),
        ({"prompt": "?", "image": "b.png"}, "line 1: there is no file 'b.png'"),
        ("{", "line 1: not valid JSON"),
        ("[1]", "line 1: expected an object"),
        ("", "has no rows"),
    ],
)
def test_what_the_trainer_would_refuse(tmp_path: Path, row: Any, message: str) -> None:
    """AC-37: said before anything is uploaded; nothing is written."""
    with pytest.raises(CliError, match=message):
        pack_directory(directory(tmp_path, row), tmp_path / "data.zip")
    assert not list(tmp_path.glob("*.zip"))


def test_a_directory_without_rows(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(CliError, match=r"has no train\.jsonl"):
        pack_directory(tmp_path / "set", tmp_path / "data.zip")

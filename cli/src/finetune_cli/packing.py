"""Packs a directory of rows and images (E-07, E-08) in the layout the trainer reads, and finds what it would refuse."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from finetune_cli.errors import CliError

ROWS: Final = "train.jsonl"
IMAGE_PARTS: Final = ("image", "image_url", "input_image")
PLACES: Final = ("image", "path", "url", "image_url")
NOT_PACKED: Final = ("__MACOSX", "Thumbs.db")
"""Left by desktops; so are names that begin with a dot."""


class Packed(NamedTuple):
    """What an archive holds."""

    rows: int
    files: int


def pack_directory(directory: Path, target: Path) -> Packed:
    """Write the archive; an existing one is replaced only when the new one is whole.

    Raises :class:`CliError` for rows that are no JSON objects and images that are not there.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file() and _is_packed(path.relative_to(directory)))
    files = [path for path in files if path.resolve() != target.resolve()]
    names = {path.relative_to(directory).as_posix(): path for path in files}
    if ROWS not in names:
        raise CliError(f"{directory} has no {ROWS}", advice="It holds one row a line, which names the images beside it.")
    rows = _check(names[ROWS], names)
    handle, unfinished = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(handle)
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, path in names.items():
                archive.write(path, name)
        Path(unfinished).chmod(0o644)
        Path(unfinished).replace(target)
    finally:
        Path(unfinished).unlink(missing_ok=True)
    return Packed(rows, len(names) - 1)


def _is_packed(path: Path) -> bool:
    return not any(part.startswith(".") or part in NOT_PACKED for part in path.parts)


def _check(file: Path, names: Mapping[str, Path]) -> int:
    """Count the rows; every image they name must be there."""
    count = 0
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise CliError(f"{ROWS}, line {number}: not valid JSON ({error})") from error
            if not isinstance(row, dict):
                raise CliError(f"{ROWS}, line {number}: expected an object with named fields")
            missing = next((image for image in _images(row) if image.removeprefix("./") not in names), None)
            if missing is not None:
                raise CliError(f"{ROWS}, line {number}: there is no file {missing!r} in {file.parent}")
            count += 1
    if not count:
        raise CliError(f"{ROWS} has no rows")
    return count


def _images(row: Mapping[str, Any]) -> Iterator[str]:
    """Paths of the images a row names: in parts of its messages, and in its columns images and image."""
    for column in ("images", "image"):
        value = row.get(column)
        yield from _paths(value if isinstance(value, list) else [value])
    for turns in row.values():
        for turn in turns if isinstance(turns, list) else []:
            content = turn.get("content", turn.get("value")) if isinstance(turn, dict) else None
            parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
            yield from _paths([part for part in parts if part.get("type") in IMAGE_PARTS])


def _paths(values: list[Any]) -> Iterator[str]:
    for value in values:
        place = value
        while isinstance(place, dict):
            place = next((place[key] for key in PLACES if place.get(key)), None)
        if isinstance(place, str) and place and "://" not in place[:16] and not place.startswith("data:"):
            yield place

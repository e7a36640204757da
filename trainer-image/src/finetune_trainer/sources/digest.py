"""Digests of contents. Names count only where they carry meaning (files of a directory); paths and times never do."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from finetune_trainer.store.transfer import hash_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
SMALL_FILE_BYTES = 16 * 1024 * 1024
SAMPLE_BYTES = 1024 * 1024
SAMPLES = 16


def digest_of(parts: Iterable[object]) -> str:
    """Sha256 over a JSON rendering of values, in hex."""
    return hashlib.sha256(json.dumps(list(parts), sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def dataset_digest(files: Sequence[Path]) -> str:
    """Digest of data files: contents in order, and how each is read (its suffix)."""
    return digest_of((path.suffix, hash_file(path)) for path in files)


def images_digest(digest: str, files: Sequence[Path]) -> str:
    """The digest of data files together with the images below their directories; the same digest where there are none."""
    found = {
        (path.relative_to(directory).as_posix(), path)
        for directory in {file.parent for file in files}
        for path in directory.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    }
    return digest_of((digest, *((name, hash_file(path)) for name, path in sorted(found)))) if found else digest


def directory_digest(directory: Path, names: Iterable[str] | None = None) -> str:
    """Digest of a model or tokenizer directory.

    Files up to 16 MiB count whole, larger ones (weights) by size and 16 evenly spread MiB: a 140 GB model is told apart in a second.
    """
    chosen = sorted(
        names if names is not None else (path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    )
    return digest_of((name, _content_digest(directory / name)) for name in chosen)


def _content_digest(path: Path) -> str:
    size = path.stat().st_size
    if size <= SMALL_FILE_BYTES:
        return hash_file(path)
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(SAMPLES):
            file.seek(number * (size - SAMPLE_BYTES) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()

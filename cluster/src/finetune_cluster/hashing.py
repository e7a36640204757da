"""Digests of inputs: what is built is named after what went into it, so that equal inputs are built once."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

KEY_LENGTH = 16
_IGNORED_FOLDERS = {"__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}


def digest_of(words: Iterable[str], files: Iterable[tuple[str, Path]] = ()) -> str:
    """Digest some words, and files by the name they are known under and their content; times and owners do not count."""
    digest = hashlib.sha256()
    for word in words:
        digest.update(f"{len(word)}:{word}".encode())
    for name, path in sorted(files):
        digest.update(f"{name}:{path.stat().st_mode & 0o111:o}:{hashlib.sha256(path.read_bytes()).hexdigest()}".encode())
    return digest.hexdigest()[:KEY_LENGTH]


def files_below(root: Path, paths: Sequence[str]) -> list[tuple[str, Path]]:
    """List the files at and below some paths, each with its name relative to the root. A path that is missing is an error."""
    found: list[tuple[str, Path]] = []
    for relative in paths:
        path = root / relative
        candidates = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
        if not candidates:
            raise FileNotFoundError(path)
        found += [(str(file.relative_to(root)), file) for file in candidates if _counts(file.relative_to(root))]
    return found


def _counts(path: Path) -> bool:
    return not _IGNORED_FOLDERS.intersection(path.parts) and path.suffix != ".pyc"

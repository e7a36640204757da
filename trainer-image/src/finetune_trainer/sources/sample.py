"""Rows for a look at the data before training: small data whole, of large objects the beginning and the end."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from finetune_trainer.sources.context import Source, SourceContext
from finetune_trainer.sources.objects import Objects, list_objects
from finetune_trainer.sources.resolve import Split, fetch_data, object_names

WHOLE_BYTES = 64 * 1024 * 1024
"""Data up to this size is fetched and read whole."""
HEAD_BYTES = 4 * 1024 * 1024
TAIL_BYTES = 1024 * 1024
LINES = (".jsonl", ".ndjson", ".txt", ".text")
"""Kinds of files that can be cut at a line."""


class Sample(NamedTuple):
    """Data files to look at."""

    files: list[Path]
    is_whole: bool


def sample_data(source: Source, context: SourceContext, split: Split, directory: Path) -> Sample:
    """Bring enough of the data onto local disk to judge it."""
    if source.scheme in ("s3", "gs"):
        objects = list_objects(source)
        names = object_names(source, objects, split)
        if sum(objects.found[name].size for name in names) > WHOLE_BYTES and names[0].endswith(LINES):
            return Sample([_excerpt(objects, name, directory) for name in (names[0], names[-1])][: len(names)], is_whole=False)
    return Sample(fetch_data(source, context, split).files, is_whole=True)


def _excerpt(objects: Objects, name: str, directory: Path) -> Path:
    """Whole lines of the beginning and of the end of an object, in a file of its name."""
    info = objects.found[name]
    head = objects.store.get_range(info.key, 0, HEAD_BYTES)
    if info.size <= HEAD_BYTES + TAIL_BYTES:
        content = objects.store.get(info.key)
    else:
        tail = objects.store.get_range(info.key, info.size - TAIL_BYTES, TAIL_BYTES)
        content = head[: head.rfind(b"\n") + 1] + tail[tail.find(b"\n") + 1 :]
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path

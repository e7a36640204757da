"""Datasets of the hub that are read while they are trained on (``dataset.streaming``): which files of which commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from finetune_trainer.errors import TrainerError
from finetune_trainer.prepare.stream import KINDS, RawReader, open_rows
from finetune_trainer.protocol import DataStream, StreamFile
from finetune_trainer.sources.context import Source, SourceContext, source_error
from finetune_trainer.sources.data_files import split_names
from finetune_trainer.sources.hub import FilePatterns, ask_hub, fetch_snapshot, hub_api, parse_hub_uri
from finetune_trainer.sources.resolve import Split

CARD: Final = "README.md"
EXCERPT_ROWS: Final = 512
"""Rows that are looked at before the training."""


def find_stream(source: Source, context: SourceContext, split: Split, *, pinned: str | None = None) -> DataStream:
    """Find the files of a split without fetching them; ``pinned`` is the commit an earlier attempt froze.

    Raises the source's error (DataError) for a dataset that is not public, or has files that cannot be read row by row.
    """
    from huggingface_hub import hf_hub_url, metadata_load

    if context.offline:
        raise source_error(source, "offline is set, and dataset.streaming reads from the hub; set dataset.streaming to false.")
    parsed = parse_hub_uri(source)
    api = hub_api(context)
    info = ask_hub(
        source,
        context,
        lambda: api.dataset_info(parsed.repo_id, revision=pinned or parsed.revision, files_metadata=True),
    )
    if info.private or getattr(info, "gated", None):
        raise source_error(source, "is not public: dataset.streaming reads public datasets only; set it to false.")
    card = fetch_snapshot(source, context, "dataset", FilePatterns(allow=(CARD,)), pinned=info.sha).directory / CARD
    metadata = (metadata_load(card) if card.is_file() else None) or {}
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    names = split_names(source, list(sizes), split=split.name, config=split.config, card=metadata)
    other = next((name for name in names if Path(name).suffix not in KINDS), None)
    if other is not None:
        raise source_error(source, f"{other} cannot be read row by row ({', '.join(sorted(KINDS))} can); set dataset.streaming to false.")
    commit = info.sha or parsed.revision or "main"

    def url(name: str) -> str:
        return hf_hub_url(parsed.repo_id, name, repo_type="dataset", revision=commit, endpoint=api.endpoint)

    return DataStream(commit=commit, files=[StreamFile(name=name, url=url(name), size=sizes[name]) for name in names])


def write_excerpt(stream: DataStream, directory: Path, rows: int = EXCERPT_ROWS) -> Path:
    """Write the first rows of a stream as a JSONL file, whatever they are read from; malformed lines as they are."""
    first = stream.files[0]
    path = directory / f"{Path(first.name).stem}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in islice(_rows(stream), rows):
            file.write((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False, default=str)) + "\n")
    return path


def _rows(stream: DataStream) -> Iterator[object]:
    for file in stream.files:
        reader: RawReader = open_rows(file)
        while batch := reader.take(64):
            for entry in batch:
                yield entry.message if isinstance(entry, TrainerError) else dict(entry.fields)

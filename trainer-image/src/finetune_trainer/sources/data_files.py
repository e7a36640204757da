"""Which files of a directory or a hub dataset hold the rows: by suffix, by the repository's own card, or by the split in their names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence

from finetune_trainer.sources.context import Source, source_error

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".parquet", ".txt", ".text", ".zip")
NOT_DATA = re.compile(r"(^|/)(\.|dataset_infos?\.json$|dataset_dict\.json$|state\.json$|README|LICENSE)", re.IGNORECASE)

SPLIT = re.compile(r"(^|[/._-])(train|test|validation|valid|dev|eval)([/._-]|$)")
"""A path that names a split, as the hub's own rule for files without a card."""


def data_names(source: Source, names: Sequence[str]) -> list[str]:
    """Data files among names, in order. Raises DataError when there is none."""
    found = sorted(name for name in names if name.endswith(SUFFIXES) and not NOT_DATA.search(name))
    if not found:
        have = ", ".join(sorted(names)[:5]) or "nothing"
        raise source_error(source, f"no data file ({' '.join(SUFFIXES)}) there; found {have}.")
    suffixes = sorted({name[name.rindex(".") :] for name in found})
    if len(suffixes) > 1:
        raise source_error(source, f"holds files of several kinds ({', '.join(suffixes)}): name one file or keep one kind.")
    return found


def directory_names(source: Source, names: Sequence[str], *, split: str) -> list[str]:
    """Data files of a directory: all, or those of the split where several splits are told apart by their names, as in a hub dataset.

    Raises DataError when there is none, and for a split that the names know nothing of while they know others.
    """
    candidates = [name for name in names if name.endswith(SUFFIXES) and not NOT_DATA.search(name)]
    named = [name for name in candidates if _names_split(name, split)]
    others = [name for name in candidates if name not in named and SPLIT.search(name)]
    if named and others:
        return data_names(source, named)
    if others and split != "train" and len(candidates) > 1:
        raise source_error(source, f"has no split {split}; files: {', '.join(sorted(candidates)[:8])}.")
    return data_names(source, names)


def _names_split(name: str, split: str) -> bool:
    return re.search(rf"(^|[/._-]){re.escape(split)}([/._-]|$)", name) is not None


def split_names(source: Source, names: Sequence[str], *, split: str, config: str | None, card: Mapping[str, object]) -> list[str]:
    """Files of a split: what the dataset's card configures, else those whose path names the split; a dataset of one split is all train."""
    if not re.fullmatch(r"[\w.-]+", split):
        raise source_error(source, f"dataset.split {split}: slices are not supported, use dataset.maxSamples.")
    configured = _configured(source, split=split, config=config, card=card)
    candidates = [name for name in names if name.endswith(SUFFIXES) and not NOT_DATA.search(name)]
    if configured is not None:
        chosen = [name for name in candidates if any(fnmatch.fnmatch(name, pattern) for pattern in configured)]
        return data_names(source, chosen)
    if config is not None:
        candidates = [name for name in candidates if config in name.split("/")[:-1]]
    named = [name for name in candidates if _names_split(name, split)]
    if named:
        return data_names(source, named)
    others = [name for name in candidates if SPLIT.search(name)]
    if split == "train" and not others:
        return data_names(source, candidates)
    raise source_error(
        source, f"has no split {split}{f' in config {config}' if config else ''}; files: {', '.join(sorted(candidates)[:8]) or 'none'}."
    )


def _configured(source: Source, *, split: str, config: str | None, card: Mapping[str, object]) -> list[str] | None:
    """Patterns of the card's ``configs`` for a split; None when the card configures nothing."""
    configs = card.get("configs")
    if not isinstance(configs, list) or not configs:
        return None
    by_name = {entry.get("config_name", "default"): entry for entry in configs if isinstance(entry, dict) and entry.get("data_files")}
    if not by_name:
        return None
    default = next((name for name, entry in by_name.items() if entry.get("default")), next(iter(by_name)))
    chosen = by_name.get(config or default)
    if chosen is None:
        raise source_error(source, f"dataset.config {config} does not exist; it has {', '.join(sorted(by_name))}.")
    folder = str(chosen.get("data_dir", "")).strip("/")
    patterns = _patterns(chosen["data_files"], split)
    if patterns is None:
        raise source_error(source, f"has no split {split} in config {config or default}.")
    return [f"{folder}/{pattern}" if folder else pattern for pattern in patterns]


def _patterns(data_files: object, split: str) -> list[str] | None:
    """Patterns of a split in a ``data_files`` entry: a string or list (all train), or a list of {split, path}."""
    if isinstance(data_files, str):
        return [data_files] if split == "train" else None
    if not isinstance(data_files, list):
        return None
    if all(isinstance(entry, str) for entry in data_files):
        return list(data_files) if split == "train" else None
    paths = [entry.get("path") for entry in data_files if isinstance(entry, dict) and entry.get("split") == split]
    flat = [path for entry in paths for path in (entry if isinstance(entry, list) else [entry])]
    return [str(path) for path in flat] or None

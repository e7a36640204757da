"""Brings models, tokenizers and data onto local disk, whatever their scheme."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

from finetune_trainer.sources.context import Source, SourceContext, source_error
from finetune_trainer.sources.data_files import data_names, directory_names, split_names
from finetune_trainer.sources.digest import dataset_digest, directory_digest, images_digest
from finetune_trainer.sources.https import fetch_https
from finetune_trainer.sources.hub import FilePatterns, fetch_snapshot, repository_files
from finetune_trainer.sources.model_code import check_code
from finetune_trainer.sources.model_directory import CONFIG, TOKENIZER_FILES, check_model, check_tokenizer, is_needed, local_files
from finetune_trainer.sources.mounted import mounted_path
from finetune_trainer.sources.objects import Objects, fetch_objects, list_objects
from finetune_trainer.vision import PROCESSOR_FILES, VIDEO_PROCESSOR_FILE

UNUSED_MODEL_FILES = ("*.gguf", "*.onnx", "*.h5", "*.msgpack", "*.pth", "*.md", "*/*")
UNUSED_TOKENIZER_FILES = (*UNUSED_MODEL_FILES, "*.safetensors", "*.bin", "*.pt")


class FetchedModel(NamedTuple):
    """A model or tokenizer directory on local disk."""

    directory: Path
    revision: str
    """Commit of a hub repository, else a digest of the contents."""
    warnings: dict[str, str]


class FetchedData(NamedTuple):
    """Data files on local disk."""

    files: list[Path]
    digest: str


class Split(NamedTuple):
    """Part of a hub dataset, or of a directory whose files are named by their splits."""

    name: str
    config: str | None


def fetch_model(source: Source, context: SourceContext, *, pinned: str | None = None, needs_tokenizer: bool) -> FetchedModel:
    """Fetch and check a model directory; ``pinned`` is the revision an earlier attempt froze (used for hub repositories)."""
    if source.scheme == "hf":
        commit = pinned if pinned and len(pinned) == 40 else None
        snapshot = fetch_snapshot(source, context, "model", _model_patterns(source, context, commit), pinned=commit)
        directory, revision = snapshot.directory, snapshot.commit
    else:
        directory = _fetch_directory(source, context, lambda names: _model_choice(source, names))
        revision = directory_digest(directory)
    files = local_files(directory)
    warnings = check_model(source, files)
    if needs_tokenizer:
        check_tokenizer(source, files.sizes)
    if source.runs_code:
        warnings |= check_code(source, files)
    return FetchedModel(directory, revision, warnings)


def fetch_tokenizer(source: Source, context: SourceContext) -> FetchedModel:
    """Fetch a tokenizer directory (C-14)."""
    if source.scheme == "hf":
        snapshot = fetch_snapshot(source, context, "model", FilePatterns(ignore=UNUSED_TOKENIZER_FILES))
        directory, revision = snapshot.directory, snapshot.commit
    else:
        directory = _fetch_directory(source, context, lambda _: _is_tokenizer_file)
        revision = directory_digest(directory, tokenizer_names(directory))
    files = local_files(directory)
    check_tokenizer(source, files.sizes)
    return FetchedModel(directory, revision, check_code(source, files) if source.runs_code else {})


def tokenizer_names(directory: Path) -> list[str]:
    """Files of a directory that decide how text becomes tokens."""
    names = [path.name for path in directory.iterdir() if path.is_file()]
    known = {*TOKENIZER_FILES, "merges.txt", "config.json", *PROCESSOR_FILES, VIDEO_PROCESSOR_FILE}
    return [name for name in names if name in known or name.endswith(".jinja") or "token" in name]


def fetch_data(source: Source, context: SourceContext, split: Split, *, with_images: bool = False) -> FetchedData:
    """Fetch data files: one file, or those of a directory in name order.

    ``with_images`` has the digest cover images that lie beside the files, on claims and in repositories.
    """
    match source.scheme:
        case "hf":
            files = _hub_data(source, context, split)
        case "s3" | "gs":
            objects = list_objects(source)
            names = object_names(source, objects, split)
            directory = fetch_objects(objects, context, lambda name: name in names)
            files = [directory / name for name in names]
        case "https":
            files = _local_data(source, fetch_https(source, context), split)
        case _:
            files = _local_data(source, mounted_path(source, context), split)
    digest = dataset_digest(files)
    return FetchedData(files, images_digest(digest, files) if with_images and source.scheme in ("hf", "pvc") else digest)


def fetch_file(source: Source, context: SourceContext) -> Path:
    """Fetch one small file."""
    match source.scheme:
        case "s3" | "gs":
            objects = list_objects(source)
            if not objects.is_single:
                raise source_error(source, "is a directory, a file is needed.")
            directory = fetch_objects(objects, context, lambda _: True)
            return directory / next(iter(objects.found))
        case "https":
            directory = fetch_https(source, context)
            return next(path for path in directory.iterdir() if path.is_file())
        case _:
            path = mounted_path(source, context)
            if not path.is_file():
                raise source_error(source, "is a directory, a file is needed.")
            return path


def fetch_json(source: Source, context: SourceContext) -> Path:
    """Fetch one small JSON file (adapter.peftConfig); raises when it is none."""
    path = fetch_file(source, context)
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise source_error(source, f"is no JSON: {error}.") from error
    return path


def fetch_directory(source: Source, context: SourceContext) -> Path:
    """Fetch a whole directory as it is (a checkpoint from elsewhere)."""
    return _fetch_directory(source, context, lambda _: lambda _: True)


def fetch_files(source: Source, context: SourceContext, names: Collection[str]) -> Path:
    """Fetch a directory's files of these names, those that are there; of a mounted or unpacked one all."""
    return _fetch_directory(source, context, lambda _: lambda name: name in names)


def _fetch_directory(source: Source, context: SourceContext, choose: Callable[[frozenset[str]], Callable[[str], bool]]) -> Path:
    match source.scheme:
        case "s3" | "gs":
            objects = list_objects(source)
            if objects.is_single:
                raise source_error(source, _not_a_directory(source.uri))
            return fetch_objects(objects, context, choose(frozenset(objects.found)))
        case "https":
            return fetch_https(source, context)
        case _:
            path = mounted_path(source, context)
            if not path.is_dir():
                raise source_error(source, _not_a_directory(source.uri))
            return path


def _model_choice(source: Source, names: frozenset[str]) -> Callable[[str], bool]:
    """Which files of a model directory are fetched; a directory of GGUF files alone is refused at once."""
    if CONFIG not in names and any(name.endswith(".gguf") for name in names):
        raise source_error(source, _not_a_directory(".gguf"))
    return lambda name: is_needed(name, names)


def _model_patterns(source: Source, context: SourceContext, commit: str | None) -> FilePatterns:
    """The needed files by name; offline (the hub cannot be asked) all but those of other frameworks."""
    if context.offline:
        return FilePatterns(ignore=UNUSED_MODEL_FILES)
    names = frozenset(repository_files(source, context, pinned=commit))
    wanted = _model_choice(source, names)
    return FilePatterns(allow=tuple(sorted(filter(wanted, names))))


def _not_a_directory(uri: str) -> str:
    if uri.lower().endswith(".gguf"):
        return "is a GGUF file: made for inference, it cannot be trained. Use the model's safetensors directory."
    return "is a file, a directory is needed."


def _is_tokenizer_file(name: str) -> bool:
    return "/" not in name and not name.endswith((".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".onnx"))


def object_names(source: Source, objects: Objects, split: Split) -> list[str]:
    """Data files among the objects of a bucket's address."""
    names = list(objects.found)
    return data_names(source, names) if objects.is_single else directory_names(source, names, split=split.name)


def _local_data(source: Source, path: Path, split: Split) -> list[Path]:
    if path.is_file():
        return [path]
    names = [entry.relative_to(path).as_posix() for entry in path.rglob("*") if entry.is_file()]
    return [path / name for name in directory_names(source, names, split=split.name)]


def _hub_data(source: Source, context: SourceContext, split: Split) -> list[Path]:
    from huggingface_hub import metadata_load

    snapshot = fetch_snapshot(source, context, "dataset", FilePatterns())
    card = snapshot.directory / "README.md"
    metadata = (metadata_load(card) if card.is_file() else None) or {}
    names = [path.relative_to(snapshot.directory).as_posix() for path in snapshot.directory.rglob("*") if path.is_file()]
    chosen = split_names(source, names, split=split.name, config=split.config, card=metadata)
    return [snapshot.directory / name for name in chosen]

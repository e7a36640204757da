"""Looks at a model where it lies: names, sizes and a few bytes, so that preflight needs no download of the weights."""

from __future__ import annotations

from typing import NamedTuple

import urllib3

from finetune_trainer.sources.context import Source, SourceContext, source_error
from finetune_trainer.sources.https import check_reachable, web_client
from finetune_trainer.sources.hub import FilePatterns, HubOutageError, ask_hub, fetch_snapshot, hub_api, parse_hub_uri
from finetune_trainer.sources.model_code import TOKENIZER_CONFIG, check_code
from finetune_trainer.sources.model_directory import CONFIG, INDEX, ModelFiles, check_model, check_tokenizer, local_files
from finetune_trainer.sources.mounted import mounted_path
from finetune_trainer.sources.objects import list_objects

SMALL_FILES = (CONFIG, INDEX, TOKENIZER_CONFIG, "adapter_config.json")
"""Read whole; of the others a few bytes."""


class HubFile(NamedTuple):
    """A file of a repository at a commit."""

    repo_id: str
    revision: str
    name: str


def check_remote_model(source: Source, context: SourceContext, *, needs_tokenizer: bool) -> dict[str, str]:
    """Check a model as :func:`~finetune_trainer.sources.model_directory.check_model` does, without its weights; returns warnings."""
    if source.uri.lower().rstrip("/").endswith(".gguf"):
        raise source_error(source, "is a GGUF file: made for inference, it cannot be trained. Use the model's safetensors directory.")
    if source.scheme == "https":
        check_reachable(source)
        return {}
    files = _files(source, context)
    warnings = check_model(source, files)
    if needs_tokenizer:
        check_tokenizer(source, files.sizes)
    return warnings | check_code(source, files) if source.runs_code else warnings


def check_remote_tokenizer(source: Source, context: SourceContext) -> dict[str, str]:
    """Check that another tokenizer is there; returns warnings."""
    if source.scheme == "https":
        check_reachable(source)
        return {}
    files = _files(source, context)
    check_tokenizer(source, files.sizes)
    return check_code(source, files) if source.runs_code else {}


def read_remote(source: Source, context: SourceContext, name: str) -> bytes | None:
    """Contents of a small file of a model or tokenizer directory; None where there is none, or where it cannot be looked at (https)."""
    files = remote_files(source, context)
    return files.read(name, 0, files.sizes[name]) if files is not None and name in files.sizes else None


def remote_files(source: Source, context: SourceContext) -> ModelFiles | None:
    """The files of a model, read where they lie; None where they cannot be looked at (https)."""
    return None if source.scheme == "https" else _files(source, context)


def _files(source: Source, context: SourceContext) -> ModelFiles:
    match source.scheme:
        case "s3" | "gs":
            objects = list_objects(source)
            if objects.is_single:
                raise source_error(source, "is a file, a directory is needed.")
            sizes = {name: info.size for name, info in objects.found.items()}
            return ModelFiles(sizes, lambda name, start, length: objects.store.get_range(objects.found[name].key, start, length))
        case "hf":
            return _hub_files(source, context)
        case _:
            path = mounted_path(source, context)
            if not path.is_dir():
                raise source_error(source, "is a file, a directory is needed.")
            return local_files(path)


def _hub_files(source: Source, context: SourceContext) -> ModelFiles:
    """Sizes as the hub knows them; small JSON files are fetched, of the weights only the headers."""
    parsed = parse_hub_uri(source)
    if context.offline:
        return local_files(fetch_snapshot(source, context, "model", FilePatterns()).directory)
    info = ask_hub(source, context, lambda: hub_api(context).model_info(parsed.repo_id, revision=parsed.revision, files_metadata=True))
    sizes = {sibling.rfilename: sibling.size or 0 for sibling in info.siblings or []}
    small = fetch_snapshot(source, context, "model", FilePatterns(allow=SMALL_FILES), pinned=info.sha).directory

    def read(name: str, start: int, length: int) -> bytes:
        if name in SMALL_FILES:
            return (small / name).read_bytes()[start : start + length]
        return _weight_bytes(source, context, HubFile(parsed.repo_id, info.sha or "main", name), start, length)

    return ModelFiles(sizes, read)


def _weight_bytes(source: Source, context: SourceContext, place: HubFile, start: int, length: int) -> bytes:
    """A range of a file of the hub."""
    from huggingface_hub import hf_hub_url

    def read() -> bytes:
        api = hub_api(context)
        url = hf_hub_url(place.repo_id, place.name, revision=place.revision, endpoint=api.endpoint)
        headers = {"Range": f"bytes={start}-{start + length - 1}"} | ({"Authorization": f"Bearer {api.token}"} if api.token else {})
        try:
            with web_client(url) as http:
                answer = http.request("GET", url, headers=headers, preload_content=False)
                try:
                    data = bytes(answer.read(length if answer.status == 206 else start + length))
                finally:
                    answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise HubOutageError(f"{type(error).__name__}: {error}"[:300]) from error
        if answer.status not in (200, 206):
            raise HubOutageError(f"status {answer.status} for {place.name}")
        return data if answer.status == 206 else data[start : start + length]

    return ask_hub(source, context, read)

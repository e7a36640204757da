"""Files of a model repository one by one: what the hub says of each, and whether what was fetched is that."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from finetune_trainer.sources.context import Source, SourceContext, source_error
from finetune_trainer.sources.hub import ask_hub, hub_api, parse_hub_uri
from finetune_trainer.sources.model_directory import is_needed

READ_BYTES = 4 * 1024 * 1024


class KnownFile(NamedTuple):
    """A file as the hub describes it."""

    name: str
    size: int | None
    """Bytes."""
    sha256: str | None
    """Of large files, which are kept outside git."""
    blob: str | None
    """Git's name for the content of all others."""


class Repository(NamedTuple):
    """What there is to fetch of a repository."""

    name: str
    """``org/name``."""
    commit: str
    files: list[KnownFile]
    """By name."""


class FetchedFile(NamedTuple):
    """A file on local disk that is what the hub says it is."""

    path: Path
    size: int
    sha256: str


def list_repository(source: Source, context: SourceContext) -> Repository:
    """The files of a model that are worth keeping: one format of weights, config, tokenizer, licence and card.

    Raises :class:`TrainerError` as :func:`~finetune_trainer.sources.hub.ask_hub` does.
    """
    parsed = parse_hub_uri(source)
    info = ask_hub(source, context, lambda: hub_api(context).model_info(parsed.repo_id, revision=parsed.revision, files_metadata=True))
    siblings = info.siblings or []
    names = frozenset(sibling.rfilename for sibling in siblings)
    files = [
        KnownFile(sibling.rfilename, sibling.size, sibling.lfs.sha256 if sibling.lfs is not None else None, sibling.blob_id)
        for sibling in sorted(siblings, key=lambda each: each.rfilename)
        if is_needed(sibling.rfilename, names) or ("/" not in sibling.rfilename and sibling.rfilename.endswith(".md"))
    ]
    if info.sha is None:
        raise source_error(source, "the hub names no commit; use a server that speaks the hub's whole protocol.")
    return Repository(parsed.repo_id, info.sha, files)


def fetch_file(source: Source, context: SourceContext, repository: Repository, file: KnownFile, directory: Path) -> FetchedFile:
    """Fetch a file into a directory and compare size and digest. What an interrupted try left in the directory is gone on with.

    Raises :class:`TrainerError`: the source's error when it is not what the hub says, HuggingFaceAuth, HubUnavailable.
    """

    def download() -> str:
        found = hub_api(context).hf_hub_download(repository.name, file.name, revision=repository.commit, local_dir=directory)
        return str(found)

    path = Path(ask_hub(source, context, download))
    size = path.stat().st_size
    sha256, blob = _digests(path, size)
    for wanted, found, what in ((file.size, size, "bytes"), (file.sha256, sha256, "sha256")):
        if wanted is not None and wanted != found:
            raise _differs(source, path, f"{file.name} has {what} {found}, the hub says {wanted}")
    if file.sha256 is None and file.blob is not None and file.blob != blob:
        raise _differs(source, path, f"{file.name} is the blob {blob}, the hub says {file.blob}")
    return FetchedFile(path, size, sha256)


def _differs(source: Source, path: Path, problem: str) -> Exception:
    path.unlink()
    return source_error(source, f"{problem}: pull again; should that not help, the repository or a proxy on the way is broken.")


def _digests(path: Path, size: int) -> tuple[str, str]:
    """Sha256 of a file, and git's name for its content."""
    sha256, blob = hashlib.sha256(), hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(READ_BYTES):
            sha256.update(piece)
            blob.update(piece)
    return sha256.hexdigest(), blob.hexdigest()

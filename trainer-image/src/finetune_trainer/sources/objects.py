"""``s3://`` and ``gs://`` sources: an object, or all objects below a prefix."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from finetune_trainer.sources.context import Source, SourceContext, source_error
from finetune_trainer.sources.digest import digest_of
from finetune_trainer.store.base import ObjectInfo, Store
from finetune_trainer.store.s3 import S3Store
from finetune_trainer.store.s3_client import S3Connection, S3Location, parse_s3_uri
from finetune_trainer.store.transfer import fill_directory, inside

PARALLEL_FILES = 4


class Objects(NamedTuple):
    """What a URI names: a store rooted at the bucket and the objects, by their name relative to the URI."""

    store: Store
    found: dict[str, ObjectInfo]
    is_single: bool
    """The URI names one object, not a prefix."""


def list_objects(source: Source) -> Objects:
    """List a source. Raises the role's error when there is nothing, StorageAuth when the credentials do not do."""
    location = parse_s3_uri(source.uri, region=source.region)
    store = S3Store(S3Connection(S3Location(location.scheme, location.bucket, "", None, location.region), source.secret))
    path = location.prefix
    listing = [info for info in store.list(path) if info.key == path or not path or info.key.startswith(f"{path}/")]
    listing = [info for info in listing if not info.key.endswith("/")]
    if not listing:
        raise source_error(source, f"nothing there in bucket {location.bucket}; check the path and the region.")
    single = [info for info in listing if info.key == path]
    if single:
        return Objects(store, {Path(path).name: single[0]}, is_single=True)
    return Objects(store, {info.key[len(path) :].lstrip("/"): info for info in listing}, is_single=False)


def fetch_objects(objects: Objects, context: SourceContext, wanted: Callable[[str], bool]) -> Path:
    """Bring the wanted objects into the cache, keyed by names, sizes and entity tags; returns the directory they lie in."""
    chosen = {name: info for name, info in sorted(objects.found.items()) if wanted(name)}
    key = digest_of((name, info.size, info.etag) for name, info in chosen.items())

    def fill(directory: Path) -> None:
        with ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="fetch") as pool:
            list(pool.map(lambda item: objects.store.download(item[1].key, inside(directory, item[0])), chosen.items()))

    return fill_directory(context.cache_dir / "objects" / key, fill)

"""Moves sets of files between a directory and the store, several at once, with a digest of each."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TypeVar

from finetune_api.contract.store import StoredFile
from finetune_trainer.store.base import Store
from finetune_trainer.store.errors import DigestMismatchError

Item = TypeVar("Item")
Result = TypeVar("Result")
PARALLEL_FILES = 4
STALE_SECONDS = 6 * 3600.0


def hash_file(path: Path) -> str:
    """Sha256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def upload_files(
    store: Store, directory: Path, prefix: str, names: Sequence[str], done: dict[str, StoredFile] | None = None
) -> list[StoredFile]:
    """Upload files of a directory below a prefix; returns them with size and digest, in the order given.

    ``done`` collects what is up: given again after a failure, only the rest is sent.
    """
    finished = {} if done is None else done

    def send(name: str) -> StoredFile:
        if name in finished:
            return finished[name]
        path = directory / name
        described = StoredFile(path=name, size=path.stat().st_size, sha256=hash_file(path))
        store.upload(f"{prefix}/{name}", path)
        finished[name] = described
        return described

    return in_parallel(send, names)


def download_files(store: Store, prefix: str, files: Sequence[StoredFile], directory: Path) -> None:
    """Download files into a directory and check each digest on the way.

    Raises DigestMismatchError or ObjectNotFoundError that names the file.
    """

    def receive(file: StoredFile) -> None:
        key = f"{prefix}/{file.path}" if prefix else file.path
        found = store.download(key, inside(directory, file.path))
        if found != file.sha256:
            raise DigestMismatchError(store.url(key), file.sha256, found)

    in_parallel(receive, files)


def inside(directory: Path, name: str) -> Path:
    """Path of a relative name; refuses one that would leave the directory."""
    path = directory / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name} is not a name inside {directory}")
    return path


def fill_directory(target: Path, fill: Callable[[Path], None]) -> Path:
    """Make ``target`` by filling a temporary directory beside it and renaming it; several processes may do so at once, the first one wins.

    A directory of that name is complete by construction.
    """
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".filling-{target.name[:80]}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir()
        fill(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def remove_stale(cache: Path, *, seconds: float = STALE_SECONDS) -> list[Path]:
    """Remove temporary directories of a cache that nobody writes to any more; returns them.

    A cache may be shared: a directory is stale when nothing in it changed for ``seconds`` by the clock of the volume itself.
    """
    with tempfile.TemporaryFile(dir=cache) as probe:
        now = os.fstat(probe.fileno()).st_mtime
    temporary = (path for kind in (".filling-*", ".download-*") for path in cache.glob(f"*/{kind}") if path.is_dir())
    stale = [path for path in temporary if now - _last_change(path) > seconds]
    for path in stale:
        shutil.rmtree(path, ignore_errors=True)
    return stale


def _last_change(directory: Path) -> float:
    """Latest change of anything in a directory; files that vanish meanwhile are a change of their folder."""
    times = [directory.stat().st_mtime]
    for folder, _, names in os.walk(directory):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            with contextlib.suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
    return max(times)


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], *, workers: int = PARALLEL_FILES) -> list[Result]:
    """Results in order; the first failure cancels what has not begun and is raised."""
    with ThreadPoolExecutor(workers, thread_name_prefix="transfer") as pool:
        futures: list[Future[Result]] = [pool.submit(work, item) for item in items]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [future.result() for future in futures]

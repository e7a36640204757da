"""``https://`` sources: one file, or a tar archive that is unpacked safely."""

from __future__ import annotations

import hashlib
import shutil
import tarfile
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar
from urllib.parse import unquote, urlsplit

import stamina
import urllib3

from finetune_api.contract.env import HTTPS_TOKEN_KEY
from finetune_api.contract.failures import FailureClass
from finetune_trainer.sources.context import Source, SourceContext, source_error
from finetune_trainer.sources.digest import digest_of
from finetune_trainer.store.http_pool import http_pool
from finetune_trainer.store.transfer import fill_directory

Result = TypeVar("Result")
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
OUTAGE_PATIENCE_SECONDS = 300.0
READ_BYTES = 1024 * 1024


class ServerOutageError(Exception):
    """The server did not answer properly; it may a moment later."""


def fetch_https(source: Source, context: SourceContext) -> Path:
    """Directory with the file, or with what the archive holds (without a single top folder).

    Cached under the server's strong entity tag where it sends one, else under the content's own digest (then it is downloaded each time).
    """
    name = Path(unquote(urlsplit(source.uri).path)).name or "download"
    objects = context.cache_dir / "objects"
    with web_client(source.uri) as http:
        etag = _patiently(source, lambda: _strong_etag(http, source))
        if etag:
            target = objects / digest_of(("https", name, etag))
            return fill_directory(target, lambda directory: _download(http, source, directory, name))
        staging = objects / f".download-{uuid.uuid4().hex[:16]}"
        staging.mkdir(parents=True)
        try:
            digest = _receive(http, source, staging / name)
            target = objects / digest_of(("https", name, digest))
            return fill_directory(target, lambda directory: _place(source, staging / name, directory, name))
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def check_reachable(source: Source) -> None:
    """Ask for the headers only; raises the role's error when the server refuses."""
    with web_client(source.uri) as http:
        answer = _patiently(source, lambda: _request(http, "HEAD", source))
        answer.close()
        if answer.status in (401, 403, 404, 410):
            _refuse(answer, source)


def web_client(url: str) -> urllib3.PoolManager:
    """Client that follows redirects (the token stays with the first host) and leaves retries to us."""
    redirects_only = urllib3.Retry(total=None, connect=0, read=0, redirect=5, status=0, other=0)
    return http_pool(url, timeout=urllib3.Timeout(connect=10, read=60), retries=redirects_only)


def _patiently(source: Source, request: Callable[[], Result]) -> Result:
    """Wait for outages; raises StorageUnavailable after five minutes."""
    try:
        for attempt in stamina.retry_context(on=ServerOutageError, attempts=None, timeout=OUTAGE_PATIENCE_SECONDS, wait_max=15.0):
            with attempt:
                return request()
    except ServerOutageError as error:
        problem = f"the server did not answer within {OUTAGE_PATIENCE_SECONDS:.0f} s: {error}"
        raise source_error(source, problem, FailureClass.STORAGE_UNAVAILABLE) from error
    raise AssertionError("unreachable: the retry context returns or raises")


def _strong_etag(http: urllib3.PoolManager, source: Source) -> str | None:
    answer = _request(http, "HEAD", source)
    etag = answer.headers.get("ETag", "")
    answer.close()
    return etag if answer.status == 200 and etag and not etag.startswith("W/") else None


def _download(http: urllib3.PoolManager, source: Source, directory: Path, name: str) -> None:
    download = directory / f".download-{name}"
    _receive(http, source, download)
    _place(source, download, directory, name)


def _place(source: Source, download: Path, directory: Path, name: str) -> None:
    """Unpack an archive into the directory, or move the file there."""
    if not name.endswith(ARCHIVE_SUFFIXES):
        download.rename(directory / name)
        return
    unpacked = directory / ".unpacked"
    try:
        with tarfile.open(download) as archive:
            archive.extractall(unpacked, filter="data")
    except (tarfile.TarError, OSError, EOFError) as error:
        raise source_error(source, f"cannot be unpacked: {error}") from error
    download.unlink()
    entries = list(unpacked.iterdir())
    top = entries[0] if len(entries) == 1 and entries[0].is_dir() else unpacked
    for entry in list(top.iterdir()):
        entry.rename(directory / entry.name)
    shutil.rmtree(unpacked)


def _receive(http: urllib3.PoolManager, source: Source, path: Path) -> str:
    """Write the body to a file; returns its sha256."""

    def receive() -> str:
        answer = _request(http, "GET", source)
        try:
            return _copy_body(answer, source, path)
        except urllib3.exceptions.HTTPError as error:
            raise ServerOutageError(_first_line(error)) from error
        finally:
            answer.close()

    return _patiently(source, receive)


def _copy_body(answer: urllib3.BaseHTTPResponse, source: Source, path: Path) -> str:
    if answer.status >= 500 or answer.status in (408, 429):
        raise ServerOutageError(f"status {answer.status}")
    if answer.status != 200:
        _refuse(answer, source)
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for piece in answer.stream(READ_BYTES, decode_content=False):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def _refuse(answer: urllib3.BaseHTTPResponse, source: Source) -> NoReturn:
    """Raise the role's error for an answer that no repetition mends."""
    if answer.status in (401, 403):
        have = f"the key {HTTPS_TOKEN_KEY} of Secret {source.secret.name}" if source.secret.read(HTTPS_TOKEN_KEY) else "no token"
        raise source_error(
            source, f"the server answers {answer.status} (sent: {have}); set secretRef to a Secret whose key {HTTPS_TOKEN_KEY} may read it."
        )
    raise source_error(source, f"the server answers {answer.status}.")


def _request(http: urllib3.PoolManager, method: str, source: Source) -> urllib3.BaseHTTPResponse:
    token = source.secret.read(HTTPS_TOKEN_KEY)
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return http.request(method, source.uri, headers=headers, preload_content=False)
    except urllib3.exceptions.HTTPError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise source_error(
                source, "the server's certificate is not trusted: the administrator can name its CA in the chart's trainer.caBundle."
            ) from error
        raise ServerOutageError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    """Kind and first line of an error, bounded."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"[:300]

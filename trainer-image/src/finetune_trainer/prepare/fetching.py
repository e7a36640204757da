"""Images by URL: a file each, fetched once while rows are prepared."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

import stamina
import urllib3

from finetune_trainer.prepare.archive import MAX_MEMBER
from finetune_trainer.prepare.rows import data_error
from finetune_trainer.store.http_pool import http_pool

PATIENCE_SECONDS: Final = 60.0
TIMEOUT: Final = urllib3.Timeout(connect=10, read=60)
REDIRECTS: Final = 5


class _OutageError(Exception):
    """The server did not answer properly; it may a moment later."""


def fetch_image(where: str, url: str, *, offline: bool, only_check: bool = False) -> bytes:
    """Bytes behind an https:// address; with ``only_check`` nothing is asked for, only what the job allows is judged.

    Raises :class:`TrainerError` (DataError) naming row and field.
    """
    if not url.startswith("https://") or not urlsplit(url).hostname:
        raise data_error(f"{where}: images are fetched from https:// only, found {url[:80]!r}")
    if offline:
        raise data_error(
            f"{where}: the job is offline, so that images cannot be fetched by URL; pack them into a ZIP (dataset.format: vlm-zip)"
        )
    if only_check:
        return b""
    try:
        for attempt in stamina.retry_context(on=_OutageError, attempts=None, timeout=PATIENCE_SECONDS, wait_max=5.0):
            with attempt:
                return _fetch(where, url)
    except _OutageError as error:
        raise data_error(f"{where}: {url[:200]} did not answer within {PATIENCE_SECONDS:.0f} s: {error}") from error
    raise AssertionError("unreachable: the retry context returns or raises")


def _fetch(where: str, url: str) -> bytes:
    only_redirects = urllib3.Retry(total=None, connect=0, read=0, redirect=REDIRECTS, status=0, other=0)
    try:
        with http_pool(url, timeout=TIMEOUT, retries=only_redirects) as http:
            answer = http.request("GET", url, preload_content=False)
            try:
                content = answer.read(MAX_MEMBER + 1, decode_content=True)
            finally:
                answer.close()
    except urllib3.exceptions.HTTPError as error:
        raise _OutageError(f"{type(error).__name__}: {error}"[:300]) from error
    if answer.status >= 500 or answer.status in (408, 429):
        raise _OutageError(f"status {answer.status}")
    if answer.status != 200:
        raise data_error(f"{where}: {url[:200]} answers {answer.status}")
    if len(content) > MAX_MEMBER:
        raise data_error(f"{where}: {url[:200]} has more than {MAX_MEMBER} bytes")
    return bytes(content)

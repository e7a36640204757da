"""The start-up probe: whether this job may list, write, read and delete, and whether the store honours create-if-absent."""

from __future__ import annotations

import os
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from finetune_trainer.store.base import Store
from finetune_trainer.store.s3 import S3Store

PROBE_PREFIX = "probe/"
CONCURRENT_CREATES = 32
MEASURED_BYTES = 4 << 20
MEASURED_ROUNDS = 2
"""The first opens connections; the faster one counts."""
UNGUARDED_CONDITION = "ConditionalWritesUnsupported"


class ProbeResult(NamedTuple):
    """What the store can do."""

    conditional_writes: bool
    """Exactly one of many concurrent creates of one key succeeded."""
    warnings: dict[str, str]
    """Condition -> message when something is missing."""


def probe_store(store: Store) -> ProbeResult:
    """Write, race, list, read and delete one small object. Raises the store's typed errors; leaves nothing behind when it succeeds."""
    key = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
    with ThreadPoolExecutor(CONCURRENT_CREATES, thread_name_prefix="probe") as pool:
        made = list(pool.map(lambda number: store.create(key, f"{number}".encode()), range(CONCURRENT_CREATES)))
    listed = [info.key for info in store.list(key)]
    winner = store.get(key)
    store.delete([key])
    conditional = made.count(True) == 1 and listed == [key] and winner == f"{made.index(True)}".encode()
    if not conditional and isinstance(store, S3Store):
        store.connection.conditional_writes = False
    message = f"{store.url('')} ignores If-None-Match: two attempts that start in the same second are not told apart."
    return ProbeResult(conditional, {} if conditional else {UNGUARDED_CONDITION: message})


def measure_upload(store: Store, directory: Path) -> float:
    """Bytes per second at which the store takes a file, as checkpoints are uploaded. Nothing is left behind, there or in ``directory``."""
    key = f"{PROBE_PREFIX}{uuid.uuid4().hex}"
    file = directory / "upload-probe"
    file.write_bytes(os.urandom(MEASURED_BYTES))
    seconds = []
    try:
        for _ in range(MEASURED_ROUNDS):
            started = time.monotonic()
            store.upload(key, file)
            seconds.append(time.monotonic() - started)
        store.delete([key])
    finally:
        file.unlink()
    return MEASURED_BYTES / max(min(seconds), 1e-6)

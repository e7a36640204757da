"""JSON lines on stdout for the cluster's log collector, and the archive of everything the pod's workers print."""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

MAX_ARCHIVE_BYTES = 64 * 1024 * 1024
WORKER_LOGGER = "worker"
"""Logger of what the processes of a pod print."""


class JsonFormatter(logging.Formatter):
    """One JSON object per line with run, attempt and pod."""

    def __init__(self, *, run: int, pod: int) -> None:
        super().__init__()
        self._run, self._pod = run, pod
        self.attempt: int | None = None

    def format(self, record: logging.LogRecord) -> str:
        """Render a record; ``extra={"rank": …}`` and exceptions are kept."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "run": self._run,
            "attempt": self.attempt,
            "pod": self._pod,
        }
        rank = record.__dict__.get("rank")
        if rank is not None:
            entry["rank"] = rank
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps({key: value for key, value in entry.items() if value is not None}, ensure_ascii=False)


def configure_logging(level: str, *, run: int, pod: int, stream: IO[str] | None = None) -> JsonFormatter:
    """Send all logging to stdout as JSON; returns the formatter, whose attempt number is set once it is claimed."""
    formatter = JsonFormatter(run=run, pod=pod)
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("urllib3", "httpx", "httpx2", "filelock", "stamina"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return formatter


class ArchiveHandler(logging.Handler):
    """Writes the supervisor's own lines into the archive; those of its processes are there already."""

    def __init__(self, archive: LogArchive) -> None:
        super().__init__()
        self._archive = archive
        self.setFormatter(logging.Formatter("[supervisor] %(asctime)s %(levelname)s %(message)s"))
        self.addFilter(lambda record: record.name != WORKER_LOGGER)

    def emit(self, record: logging.LogRecord) -> None:
        """Append a record, with its exception."""
        self._archive.write(self.format(record))


class LogArchive:
    """The pod's log file, uploaded with each checkpoint and at the end; keeps the newest part once it is too large. Thread-safe."""

    def __init__(self, path: Path, *, limit: int = MAX_ARCHIVE_BYTES) -> None:
        self._path = path
        self._limit = limit
        self._lock = threading.Lock()
        self._lost = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)

    def write(self, line: str) -> None:
        """Append one line. A disk that is full loses lines, which is said once it is not: whoever printed them must never wait for it."""
        with self._lock:
            data = line.encode(errors="replace") + b"\n"
            try:
                self._file.write(f"... {self._lost} lines lost, the disk was full ...\n".encode() + data if self._lost else data)
                self._lost = 0
                if self._file.tell() > self._limit:
                    self._halve()
            except OSError:
                self._lost += 1

    def content(self) -> bytes:
        """All that is kept."""
        with self._lock:
            return self._path.read_bytes()

    def close(self) -> None:
        """Close the file; nothing may be written afterwards."""
        with self._lock:
            self._file.close()

    def _halve(self) -> None:
        self._file.close()
        kept = self._path.read_bytes()[-self._limit // 2 :]
        self._path.write_bytes(b"... earlier lines dropped ...\n" + kept[kept.find(b"\n") + 1 :])
        self._file = self._path.open("ab", buffering=0)

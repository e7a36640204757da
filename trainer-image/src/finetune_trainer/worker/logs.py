"""One JSON object per log line, so that nothing has to be parsed out of prose."""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings


class JsonFormatter(logging.Formatter):
    """Formats a record as ``{"time", "level", "logger", "message", "rank"}``, with ``exception`` where there is one."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._rank = rank

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "rank": self._rank,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logging(level: str, rank: int) -> None:
    """Send all logs of this process to stderr as JSON. Ranks above 0 stay quiet below warnings: they would repeat rank 0."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(rank))
    chosen = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=chosen if rank == 0 else max(chosen, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(capture=True)
    if chosen > logging.DEBUG:
        quiet_libraries()


def quiet_libraries() -> None:
    """Leave out what libraries say to their developers, and peft's note at each save that the base model is known by a public name."""
    warnings.simplefilter("ignore", FutureWarning)
    warnings.simplefilter("ignore", DeprecationWarning)
    warnings.filterwarnings("ignore", message="Could not find a config file in")

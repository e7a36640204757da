"""The termination message: written whole and valid, however little room the kubelet leaves."""

from __future__ import annotations

import logging
from pathlib import Path

from finetune_api.contract.termination import MAX_LOG_BYTES, MAX_MESSAGE_BYTES, TerminationMessage

logger = logging.getLogger(__name__)
MAX_SENTENCE_BYTES = 1024


def write_termination_message(path: Path, message: TerminationMessage) -> None:
    """Write the message; a file that cannot be written is logged, the exit code still tells."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(fit(message).to_json(), encoding="utf-8")
    except OSError as error:
        logger.warning("the termination message %s cannot be written: %s", path, error.strerror)


def fit(message: TerminationMessage) -> TerminationMessage:
    """Shorten until it fits: log lines first (their end counts), then sentences, then lists, never codes."""
    message = message.model_copy(
        update={
            "message": head(message.message, MAX_SENTENCE_BYTES),
            "log_lines": tail(message.log_lines, MAX_LOG_BYTES),
            "warnings": [head(warning, 300) for warning in message.warnings],
        }
    )
    for room in (1024, 512, 0):
        if size(message) <= MAX_MESSAGE_BYTES:
            return message
        message = message.model_copy(update={"log_lines": tail(message.log_lines, room)})
    steps: tuple[dict[str, object], ...] = (
        {"warnings": message.warnings[:3]},
        {"metrics": {}},
        {"warnings": []},
        {"message": head(message.message, 300)},
    )
    for change in steps:
        if size(message) <= MAX_MESSAGE_BYTES:
            return message
        message = message.model_copy(update=change)
    return message if size(message) <= MAX_MESSAGE_BYTES else message.model_copy(update={"result": {"truncated": True}})


def size(message: TerminationMessage) -> int:
    """Bytes on disk."""
    return len(message.to_json().encode())


def head(text: str, limit: int) -> str:
    """Start of a text, at most ``limit`` bytes of UTF-8."""
    data = text.encode()
    return text if len(data) <= limit else data[: max(limit - 3, 0)].decode(errors="ignore") + "…"


def tail(text: str, limit: int) -> str:
    """Whole last lines of a text, at most ``limit`` bytes of UTF-8 (of a single longer line: its end)."""
    data = text.encode()
    if len(data) <= limit:
        return text
    cut = data[len(data) - limit :] if limit else b""
    start = cut.find(b"\n") + 1
    return (cut[start:] if 0 < start < len(cut) else cut).decode(errors="ignore")

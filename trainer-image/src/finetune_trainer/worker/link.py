"""The worker's end of the Unix socket to its supervisor: JSON lines both ways, and training never waits for the other side."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Final, Self

from pydantic import ValidationError

from finetune_trainer.protocol import SUPERVISOR_MESSAGES, SupervisorMessage, WorkerMessage

log = logging.getLogger(__name__)

FLUSH_SECONDS: Final = 10.0
"""How long :meth:`Link.close` waits for a supervisor that does not read."""


class Link:
    """Sends reports from any thread; a thread of its own hands commands to ``on_message`` and the end of the connection to ``on_lost``."""

    def __init__(
        self,
        path: Path,
        on_message: Callable[[SupervisorMessage], None] = lambda _message: None,
        on_lost: Callable[[], None] = lambda: None,
    ) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._on_message, self._on_lost = on_message, on_lost
        self._outbox: SimpleQueue[bytes | None] = SimpleQueue()
        self._closing = False
        # A data loader process inherits the descriptor; held open there, the supervisor would never see this process die.
        os.register_at_fork(after_in_child=self._forget)
        self._writer = threading.Thread(target=self._write, name="link-writer", daemon=True)
        self._reader = threading.Thread(target=self._read, name="link-reader", daemon=True)
        self._writer.start()
        self._reader.start()

    def send(self, message: WorkerMessage) -> None:
        """Queue a report; it is written in the order of the calls."""
        self._outbox.put(message.to_json().encode() + b"\n")

    def close(self) -> None:
        """Write what is queued, then disconnect."""
        self._closing = True
        self._outbox.put(None)
        self._writer.join(FLUSH_SECONDS)
        # close() alone would leave the descriptor open for as long as the reader waits on it.
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join(FLUSH_SECONDS)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _forget(self) -> None:
        # Not close(): the reader's file holds a second reference, and the descriptor would stay open.
        if self._socket.fileno() >= 0:
            os.close(self._socket.detach())

    def _write(self) -> None:
        try:
            while (line := self._outbox.get()) is not None:
                self._socket.sendall(line)
        except OSError as error:
            self._lost(error)

    def _read(self) -> None:
        try:
            with self._socket.makefile("rb") as lines:
                for line in lines:
                    self._handle(line)
            self._lost(None)
        except (OSError, ValueError) as error:
            self._lost(error)

    def _handle(self, line: bytes) -> None:
        try:
            message = SUPERVISOR_MESSAGES.validate_json(line)
        except ValidationError:
            log.warning("the supervisor sent a message this worker does not know: %s", line[:200].decode(errors="replace"))
            return
        self._on_message(message)

    def _lost(self, error: OSError | ValueError | None) -> None:
        if not self._closing:
            log.error("the supervisor is gone: %s", error or "connection closed")
            self._on_lost()

"""The Unix socket on which the workers of this pod report and are told what to do."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from finetune_trainer.protocol import WORKER_MESSAGES, Hello, Stop, SupervisorMessage, WorkerMessage

logger = logging.getLogger(__name__)
MAX_SOCKET_PATH = 100
"""The kernel's limit for the path of a Unix socket is 108 bytes."""
DRAIN_SECONDS = 5.0

MessageHandler = Callable[[int | None, WorkerMessage], SupervisorMessage | None]
"""(rank, message) -> answer to that worker. Runs in the connection's own thread; rank is None before a hello."""


class LinkServer:
    """Accepts the workers, hands their messages on, remembers an order to stop for those that connect later."""

    def __init__(self, directory: Path, on_message: MessageHandler) -> None:
        self._on_message = on_message
        self._connections: dict[int, socket.socket] = {}
        self._served: dict[int, list[threading.Thread]] = {}
        """By the process that connected."""
        self._met: set[int] = set()
        self._stop: Stop | None = None
        self._lock = threading.Lock()
        self.path = _socket_path(directory)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, name="link", daemon=True).start()

    @property
    def met(self) -> set[int]:
        """Ranks that have said hello; those that hung up since are ending by themselves."""
        with self._lock:
            return set(self._met)

    def broadcast(self, message: SupervisorMessage) -> None:
        """Send to every worker; a Stop also to those that connect later."""
        with self._lock:
            if isinstance(message, Stop):
                self._stop = message
            connections = list(self._connections.values())
        for connection in connections:
            _send(connection, message)

    def drain(self, pid: int) -> None:
        """Wait until all that a process which has ended still sent is handed on.

        Connections are accepted in order, so that those it opened are known once one of our own is served.
        """
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as ours:
            ours.settimeout(DRAIN_SECONDS)
            ours.connect(str(self.path))
            ours.shutdown(socket.SHUT_WR)
            ours.recv(1)
        with self._lock:
            threads = self._served.pop(pid, [])
        for thread in threads:
            thread.join(DRAIN_SECONDS)

    def close(self) -> None:
        """Stop listening and hang up."""
        with self._lock:
            connections = [self._listener, *self._connections.values()]
            self._connections.clear()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        self.path.unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(connection,), name="link-worker", daemon=True)
            (pid, _, _) = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
            thread.start()
            with self._lock:
                self._served.setdefault(pid, []).append(thread)

    def _serve(self, connection: socket.socket) -> None:
        rank: int | None = None
        with contextlib.suppress(OSError), connection, connection.makefile("rb") as lines:
            for line in lines:
                try:
                    message = WORKER_MESSAGES.validate_json(line)
                except ValidationError:
                    logger.exception("a worker sent something that is no message", extra={"rank": rank})
                    continue
                if isinstance(message, Hello):
                    rank = message.rank
                    self._register(rank, connection)
                answer = self._on_message(rank, message)
                if answer is not None:
                    _send(connection, answer)
        self._forget(rank, connection)

    def _register(self, rank: int, connection: socket.socket) -> None:
        with self._lock:
            self._connections[rank] = connection
            self._met.add(rank)
            stop = self._stop
        if stop is not None:
            _send(connection, stop)

    def _forget(self, rank: int | None, connection: socket.socket) -> None:
        with self._lock:
            if rank is not None and self._connections.get(rank) is connection:
                del self._connections[rank]


def _send(connection: socket.socket, message: SupervisorMessage) -> None:
    """Send one line; a worker that is gone shows by its exit, not here."""
    with contextlib.suppress(OSError):
        connection.sendall(message.to_json().encode() + b"\n")


def _socket_path(directory: Path) -> Path:
    """``link.sock`` in the work directory, or in a private directory under /tmp where that path is too long for the kernel."""
    path = directory / "link.sock"
    if len(str(path).encode()) > MAX_SOCKET_PATH:
        path = Path(tempfile.mkdtemp(prefix="finetune-")) / "link.sock"
    path.unlink(missing_ok=True)
    return path

"""A TCP relay between a client and a server that can stop passing on what the client sends: a network that hangs."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Relay:
    """Listens on a port of its own; bytes go both ways until :meth:`hold`."""

    def __init__(self, port: int) -> None:
        """``port`` is the server's, on this machine."""
        self._target = ("127.0.0.1", port)
        self._open = threading.Event()
        self._open.set()
        self._hold_at: int | None = None
        self._passed = 0
        self._lock = threading.Lock()
        self.holding = threading.Event()
        """Something the client sent is being kept back."""
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def hold_after(self, size: int) -> None:
        """Keep back all the client sends once ``size`` more bytes have passed."""
        with self._lock:
            self._hold_at = self._passed + size

    def release(self) -> None:
        """Pass on everything again."""
        with self._lock:
            self._hold_at = None
        self._open.set()

    def close(self) -> None:
        """Stop listening."""
        self.release()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                threading.Thread(target=self._pass_on, args=(client, server, True), daemon=True).start()
                threading.Thread(target=self._pass_on, args=(server, client, False), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_client: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if is_client:
                    self._wait(len(data))
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
        source.close()

    def _wait(self, size: int) -> None:
        with self._lock:
            self._passed += size
            if self._hold_at is not None and self._passed > self._hold_at:
                self._open.clear()
                self.holding.set()
        self._open.wait()


@contextmanager
def running_relay(port: int) -> Iterator[Relay]:
    """A relay that lives as long as the context."""
    relay = Relay(port)
    try:
        yield relay
    finally:
        relay.close()

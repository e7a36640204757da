"""Ports for servers that tests start: each is given once."""

from __future__ import annotations

import fcntl
import os
import socket
import tempfile
from pathlib import Path

FIRST, LAST = 20_000, 30_000
"""Below what Linux gives to clients (net.ipv4.ip_local_port_range), so that no connection takes one before its server begins."""


def free_port() -> int:
    """A TCP port that nobody listens on now; no other test of this user is given it for the next ten thousand calls."""
    with (Path(tempfile.gettempdir()) / f"finetune-test-port-{os.getuid()}").open("a+") as last_given:
        fcntl.flock(last_given, fcntl.LOCK_EX)
        last_given.seek(0)
        port = int(last_given.read() or FIRST)
        while True:
            port = port + 1 if port < LAST else FIRST
            if _is_free(port):
                break
        last_given.truncate(0)
        last_given.write(str(port))
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

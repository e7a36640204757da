"""A short-lived way from this machine to a Service of the cluster."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from finetune_cli.access import Access
from finetune_cli.errors import CliError

_FORWARDING = re.compile(r"Forwarding from 127\.0\.0\.1:([0-9]+)")
_CLUSTER_HOST = re.compile(r"(?P<service>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)\.svc(\..+)?")


@contextmanager
def reachable(endpoint: str, access: Access) -> Iterator[str]:
    """Give an address under which an endpoint can be reached from here: itself, or a local one for a Service's DNS name."""
    parts = urlsplit(endpoint)
    service = _CLUSTER_HOST.fullmatch(parts.hostname or "")
    if service is None:
        yield endpoint
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with port_forward(service["namespace"], f"service/{service['service']}", port, access) as local_port:
        yield urlunsplit(parts._replace(netloc=f"127.0.0.1:{local_port}"))


@contextmanager
def port_forward(namespace: str, target: str, port: int, access: Access) -> Iterator[int]:
    """Forward a free local port to a port of a Service or pod for as long as the context lasts.

    Raises:
        CliError: kubectl is missing, or ended before it listened; the message has what it said.
    """
    command = ["kubectl", *access.kubectl_flags(), "port-forward", "--namespace", namespace, target, f":{port}"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    except FileNotFoundError as error:
        raise CliError("kubectl is not installed or not on PATH") from error
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        yield _listening_port(process.stdout, process.stderr, f"{target} in namespace {namespace}")
    finally:
        process.terminate()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def _listening_port(output: IO[str], errors: IO[str], target: str) -> int:
    for line in output:
        match = _FORWARDING.search(line)
        if match:
            return int(match[1])
    raise CliError(f"no port-forward to {target}: {errors.read().strip()}")

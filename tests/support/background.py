"""Programs of others that run beside a test, with their output in a file."""

from __future__ import annotations

import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.platform import eventually


@contextmanager
def background(command: Sequence[str | Path], log: Path, environment: Mapping[str, str], *, health: str | None = None) -> Iterator[None]:
    """Run a program until the block ends; with ``health``, an address, the block begins when it answers 200."""
    words = [str(word) for word in command]
    with log.open("a") as output, subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, env=dict(environment)) as process:
        try:
            if health is not None:
                eventually(lambda: _answers(process, health, log), within=120, what=f"{words[0]} answers {health}")
            yield
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def _answers(process: subprocess.Popen[bytes], address: str, log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"{process.args!r} ended with {process.returncode}: {log.read_text()[-2000:]}")
    try:
        with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - an address of this machine
            return bool(answer.status == 200)
    except (urllib.error.URLError, TimeoutError):
        return False

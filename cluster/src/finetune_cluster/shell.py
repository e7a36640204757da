"""Runs other programs; a failure becomes an error that shows what was said last."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from finetune_cluster.errors import ClusterError

_TAIL_LINES = 25


class CommandError(ClusterError):
    """A program ended with a code other than 0."""


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    timeout_seconds: float | None = None,
) -> str:
    """Run a program to its end and return its standard output.

    Raises:
        CommandError: it could not be started, took longer than the timeout, or ended with a code other than 0.
    """
    words = [str(word) for word in command]
    environment = {**(os.environ if env is None else env), "PATH": search_path()}
    try:
        done = subprocess.run(
            words,
            env=environment,
            cwd=cwd,
            input=stdin,
            timeout=timeout_seconds,
            check=False,
            text=True,
            errors="replace",
            capture_output=True,
        )
    except FileNotFoundError as error:
        raise CommandError(f"{words[0]} is not installed or not on PATH: {error}") from error
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"{_shown(words)} did not end within {timeout_seconds:g} s") from error
    if done.returncode != 0:
        raise CommandError(f"{_shown(words)} ended with code {done.returncode}:\n{tail(done.stdout + done.stderr)}")
    return done.stdout


def succeeds(command: Sequence[str | Path], *, timeout_seconds: float = 30) -> bool:
    """Whether a program exists and ends with code 0; for questions whose answer may be no."""
    try:
        run(command, timeout_seconds=timeout_seconds)
    except CommandError:
        return False
    return True


def search_path() -> str:
    """Return PATH with the folders of administration programs, which not every root shell has on it."""
    return f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin:/sbin"


def tail(text: str, lines: int = _TAIL_LINES) -> str:
    """Return the last lines of a text, which is where programs say why they failed."""
    return "\n".join(text.rstrip().splitlines()[-lines:])


def _shown(words: Sequence[str]) -> str:
    line = " ".join(words)
    return line if len(line) <= 200 else f"{line[:200]}…"

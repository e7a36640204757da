"""Runs the commands a user would type, and shows them."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from finetune_cli.errors import CliError


class CommandFailedError(CliError):
    """A shown command ended with a code other than 0."""

    def __init__(self, command: str, code: int) -> None:
        super().__init__(f"`{command}` ended with code {code}")
        self.code = code
        """Exit code of the command."""


class Shell:
    """A terminal that shows each command before it runs it, and its output as it comes."""

    def __init__(self, console: Console, root: Path, environment: Mapping[str, str]) -> None:
        self._console = console
        self._root = root
        self._environment = dict(environment)

    def export(self, name: str, value: str) -> None:
        """Set a variable for all commands that follow."""
        self._environment[name] = value

    @property
    def root(self) -> Path:
        """Where the commands run: the checkout."""
        return self._root

    @property
    def environment(self) -> Mapping[str, str]:
        """What the commands see."""
        return self._environment

    def run(self, *words: str | Path, timeout_seconds: float, stdin: str | None = None, shown: str | None = None) -> None:
        """Run a command to its end.

        Args:
            words: The command.
            timeout_seconds: How long it may take.
            stdin: What it reads.
            shown: What to show instead of the words, where a user would type it differently (a pipe).

        Raises:
            CommandFailedError: it ended with another code than 0.
            CliError: it is not installed, or took too long.
        """
        self._show(shown or _line(words))
        self._run(words, timeout_seconds, stdin, output=None)

    def capture(self, *words: str | Path, timeout_seconds: float, quietly: bool = False) -> str:
        """Run a command and return its standard output; errors as for :meth:`run`."""
        if not quietly:
            self._show(_line(words))
        return self._run(words, timeout_seconds, None, output=subprocess.PIPE, quietly=quietly)

    def _show(self, line: str) -> None:
        self._console.print(Text.assemble(("$ ", "bold green"), (line, "bold")), soft_wrap=True)

    def _run(
        self, words: Sequence[str | Path], timeout_seconds: float, stdin: str | None, *, output: int | None, quietly: bool = False
    ) -> str:
        command = [str(word) for word in words]
        try:
            done = subprocess.run(
                command,
                cwd=self._root,
                env=self._environment,
                input=stdin,
                stdin=subprocess.DEVNULL if stdin is None else None,
                stdout=output,
                stderr=subprocess.DEVNULL if quietly else None,
                text=True,
                timeout=timeout_seconds,
                check=False,
            )
        except FileNotFoundError as error:
            raise CliError(f"{command[0]} is not installed or not on PATH") from error
        except subprocess.TimeoutExpired as error:
            raise CliError(f"`{_line(words)}` did not end within {timeout_seconds:.0f} s") from error
        if done.returncode != 0:
            raise CommandFailedError(_line(words), done.returncode)
        return done.stdout or ""


def _line(words: Sequence[str | Path]) -> str:
    """A command as a person types it: programs by name, paths as they are."""
    first, *rest = (str(word) for word in words)
    return shlex.join([Path(first).name, *rest])

"""The README of the command line lists all its commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from finetune_cli.__main__ import app
from tests.support.platform import ROOT


def commands(group: Any, before: str = "") -> Iterator[str]:
    """Full names of all commands."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield before + name


def test_the_table_has_every_command_and_no_other() -> None:
    """A-01: what a command can do is found; one that is gone is not looked for."""
    table = [line for line in (ROOT / "cli/README.md").read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    listed = [re.sub(r" +(\[?[A-Z]+\]?|-f FILE)$", "", name) for line in table for name in re.findall(r"`([^`]+)`", line.split("|")[1])]
    assert sorted(listed) == sorted(commands(typer.main.get_command(app)))

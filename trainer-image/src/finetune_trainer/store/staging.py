"""Puts a finished save aside without copying it, so that training goes on while it is uploaded."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

RANK_FILE = re.compile(r"(?:rng_state_|finetune_rank_)([0-9]+)\..*")
"""Files of one rank; everything else in a checkpoint is common and pod 0's."""


def rank_of(name: str) -> int | None:
    """Rank a checkpoint file belongs to, None for common files."""
    match = RANK_FILE.fullmatch(name)
    return int(match[1]) if match else None


def owned_files(directory: Path, *, pod: int, ranks: range) -> list[str]:
    """Files of a save that this pod uploads, relative to the save, in order."""
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return [name for name in names if (rank in ranks if (rank := rank_of(name)) is not None else pod == 0)]


def wanted_files(names: Iterable[str], ranks: range) -> list[str]:
    """Files of a checkpoint that a pod needs to resume: the common ones and its own ranks'."""
    return [name for name in names if (rank := rank_of(name)) is None or rank in ranks]


def stage(source: Path, target: Path, names: Iterable[str]) -> None:
    """Hard-link files into a new directory, copy where the volume cannot link. On OSError (no space) nothing is left behind."""
    try:
        for name in names:
            destination = target / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(source / name, destination)
    except OSError:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _link_or_copy(source: Path, destination: Path) -> None:
    try:
        os.link(source, destination)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, destination)

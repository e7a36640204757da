"""Puts a finished save aside without copying it, so that training goes on while it is uploaded."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

RANK_FILE = re.compile(r"(?:(?:rng_state_|finetune_rank_)(\d+)\.|(?:bf16_|fp16_)?zero_pp_rank_(\d+)_|__(\d+)_\d+\.distcp$).*")
"""Files of one rank (random state, our own, DeepSpeed's, torch's distributed checkpoint); all else is common and pod 0's."""
SHARED_PART = ".distcp"
"""Parts of a distributed checkpoint: written by one rank, read by any, as the table of contents beside them says."""


def rank_of(name: str) -> int | None:
    """Rank that wrote a checkpoint file, None for common files. Folders in the name do not count."""
    match = RANK_FILE.fullmatch(name.rpartition("/")[2])
    return next((int(number) for number in match.groups() if number is not None), None) if match else None


def owned_files(directory: Path, *, pod: int, ranks: range) -> list[str]:
    """Files of a save that this pod uploads, relative to the save, in order."""
    names = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())
    return [name for name in names if (rank in ranks if (rank := rank_of(name)) is not None else pod == 0)]


def wanted_files(names: Iterable[str], ranks: range) -> list[str]:
    """Files of a checkpoint that a pod needs to resume: the common ones, its own ranks' and those any rank may read."""
    return [name for name in names if (rank := rank_of(name)) is None or rank in ranks or name.endswith(SHARED_PART)]


def stage(source: Path, target: Path, names: Iterable[str]) -> None:
    """Hard-link files into a new directory, copy where the volume cannot link. On OSError (no space) nothing is left behind."""
    try:
        for name in names:
            destination = target / name
            destination.parent.mkdir(parents=True, exist_ok=True)
            link_or_copy(source / name, destination)
    except OSError:
        shutil.rmtree(target, ignore_errors=True)
        raise


def link_or_copy(source: Path, destination: Path) -> None:
    """Hard-link a file, or copy it where the volume cannot link. Raises FileExistsError: nothing is overwritten."""
    try:
        os.link(source, destination)
    except FileExistsError:
        raise
    except OSError:
        shutil.copyfile(source, destination)

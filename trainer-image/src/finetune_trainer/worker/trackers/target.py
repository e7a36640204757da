"""What a tracker is told once, and what it must be able to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias


@dataclass(frozen=True)
class Target:
    """Where the values of a run go."""

    type: str
    job_name: str
    job_uid: str
    """Identity of the run at the tracker: attempts continue it."""
    project: str
    uri: str | None
    secrets: Path | None
    """Directory with one file per credential."""
    directory: Path
    """For trackers that write files."""
    attempt: int
    first_step: int
    """First step of this attempt; points of lost steps from here on are written again."""
    parameters: Mapping[str, Any]

    def secret(self, name: str) -> str | None:
        """Read a credential; None when it is not there."""
        file = self.secrets / name if self.secrets is not None else None
        return file.read_text().strip() if file is not None and file.is_file() else None


class Tracker(Protocol):
    """An open connection. May raise anything; the feed copes."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record values of a step."""

    def close(self) -> None:
        """Finish this attempt's part of the run."""


Connect: TypeAlias = Callable[[Target], Tracker]


def dotted(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten parameters to ``training.learningRate`` names."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= dotted(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat

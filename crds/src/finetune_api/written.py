"""A spec as somebody wrote it, seen by the rules: leaves by dotted path, with the defaults behind them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune_api.defaults import BASE, SCHEMA

_DEFAULTS: Mapping[str, Any] = {**BASE, **SCHEMA}
OWN = "own"
"""Stands for the method of a job with a methodRef."""


@dataclass(frozen=True)
class Written:
    """Leaves of a spec (see :func:`finetune_api.resolve.flatten`)."""

    leaves: Mapping[str, Any]

    def __getitem__(self, path: str) -> Any:
        """Value at ``path``: as written, else its default, else None."""
        return self.leaves.get(path, _DEFAULTS.get(path))

    @property
    def method(self) -> str:
        """The built-in method, or :data:`OWN`."""
        return OWN if self.has("methodRef") else str(self["method"])

    def has(self, path: str) -> bool:
        """Whether the field at ``path``, or any field below it, was written."""
        return path in self.leaves or any(leaf.startswith(f"{path}.") for leaf in self.leaves)

"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from finetune_api import cel
from finetune_api.written import Written

PRESET_REF = "presetRef"


class Rule(NamedTuple):
    """A rule between fields of ``spec``, as CEL and in Python.

    A field that is not written counts with its default, except that a preset may still supply it: while one of the ``open`` fields is
    absent, the rule holds back in a job with a presetRef, and in a preset.
    """

    id: str
    requirement: str
    path: str
    """Field the message is about, relative to spec."""
    message: str
    """The rule and the fix, to be read after the path."""
    cel: str
    """Expression on ``self`` = spec, true while the rule is kept."""
    holds: Callable[[Written], bool]
    """The same in Python."""
    open: tuple[str, ...] = ()
    """Fields that are unknown, not defaulted, where a preset may supply them."""
    job_only: bool = False
    """Reads fields that no preset has."""
    explain: Callable[[Written], str] | None = None
    """A message on the very values, where Python can say more than the API server."""

    def job_expression(self) -> str:
        """CEL for the spec of a FineTuneJob."""
        return self._unless(cel.all_of(f"has(self.{PRESET_REF})", self._unknown()))

    def preset_expression(self) -> str:
        """CEL for the spec of a preset."""
        return self._unless(self._unknown())

    def kept_by_job(self, spec: Written) -> bool:
        """The judgement of :meth:`job_expression`."""
        return (spec.has(PRESET_REF) and self._is_unknown(spec)) or self.holds(spec)

    def kept_by_preset(self, spec: Written) -> bool:
        """The judgement of :meth:`preset_expression`."""
        return self.job_only or self._is_unknown(spec) or self.holds(spec)

    def _is_unknown(self, spec: Written) -> bool:
        return any(not spec.has(path) for path in self.open)

    def _unknown(self) -> str:
        return cel.any_of(*(f"!{cel.has(path)}" for path in self.open))

    def say(self, spec: Written) -> str:
        """The message for a spec that breaks the rule."""
        return self.explain(spec) if self.explain is not None else self.message

    def _unless(self, guard: str) -> str:
        return cel.any_of(guard, self.cel) if self.open else self.cel

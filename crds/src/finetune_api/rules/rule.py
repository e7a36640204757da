"""What a rule is."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from finetune_api import cel
from finetune_api.written import Written

PRESET_REF, METHOD_REF = "presetRef", "methodRef"


class Rule(NamedTuple):
    """A rule between fields of ``spec``, as CEL and in Python.

    A field that is not written counts with its default, except that a preset may still supply it: while one of the ``open`` fields is
    absent, the rule holds back in a job with a presetRef, and in a preset. A TrainingMethod may supply fields of the block resources: so
    does a rule with such ``open`` fields in a job with a methodRef.
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
    before_run: bool = False
    """Came later than the field: a job that has run keeps its value, and the API server leaves values alone that are not changed."""
    explain: Callable[[Written], str] | None = None
    """A message on the very values, where Python can say more than the API server."""

    def job_expression(self) -> str:
        """CEL for the spec of a FineTuneJob."""
        guard = cel.all_of(f"has(self.{PRESET_REF})", _unknown(self.open))
        if self._of_method:
            guard = cel.any_of(guard, cel.all_of(f"has(self.{METHOD_REF})", _unknown(self._of_method)))
        return self._unless(guard)

    def preset_expression(self) -> str:
        """CEL for the spec of a preset."""
        return self._unless(_unknown(self.open))

    def kept_by_job(self, spec: Written) -> bool:
        """The judgement of :meth:`job_expression`."""
        by_preset = spec.has(PRESET_REF) and _is_unknown(spec, self.open)
        by_method = spec.has(METHOD_REF) and _is_unknown(spec, self._of_method)
        return by_preset or by_method or self.holds(spec)

    def kept_by_preset(self, spec: Written) -> bool:
        """The judgement of :meth:`preset_expression`."""
        return self.job_only or _is_unknown(spec, self.open) or self.holds(spec)

    @property
    def _of_method(self) -> tuple[str, ...]:
        return tuple(path for path in self.open if path.startswith("resources."))

    def say(self, spec: Written) -> str:
        """The message for a spec that breaks the rule."""
        return self.explain(spec) if self.explain is not None else self.message

    def _unless(self, guard: str) -> str:
        return cel.any_of(self.cel, guard) if self.open else self.cel


def _is_unknown(spec: Written, paths: tuple[str, ...]) -> bool:
    return any(not spec.has(path) for path in paths)


def _unknown(paths: tuple[str, ...]) -> str:
    return cel.any_of(*(f"!{cel.has(path)}" for path in paths))

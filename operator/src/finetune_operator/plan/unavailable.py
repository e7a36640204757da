"""What a job names and cannot have: what is not there, may not be looked for, or is not valid itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from finetune_api.constants import CLUSTER_PRESET_KIND
from finetune_api.problems import Problem, SpecError
from finetune_operator.plan.observed import Found, Manifest, PresetFound


class UnavailableError(Exception):
    """Something is needed and there is none; ``reason`` is that of the condition Valid."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def no_cluster_presets(name: str) -> PresetFound:
    """The answer where this installation may not read presets of the cluster."""
    problem = (
        f"spec.presetRef.name: {name} is no FineTunePreset of this namespace, and this installation may not read {CLUSTER_PRESET_KIND}s"
    )
    return PresetFound(kind=CLUSTER_PRESET_KIND, problem=problem)


def manifest_of(found: Found | None, name: str, reason: str, *, missing: str, unreadable: str = "") -> Manifest:
    """What was found under a name. Raises :class:`UnavailableError` with what to say when it is not there, or may not be read."""
    if found is not None and found.manifest is not None and found.name == name:
        return found.manifest
    raise UnavailableError(reason, missing if found is None or found.may_read else unreadable)


def valid_spec(manifest: Manifest, validate: Callable[[Mapping[str, Any]], object], kind: str, path: str) -> Mapping[str, Any]:
    """The spec of an object that a job names at ``path``. Raises :class:`SpecError` when it is not valid."""
    spec, name = manifest.get("spec") or {}, manifest["metadata"]["name"]
    try:
        validate(spec)
    except SpecError as error:
        says = "; ".join(map(str, error.problems))
        raise SpecError([Problem(path, name, f"{kind} {name} itself is not valid: {says}")]) from error
    return spec

"""What a job is called whose manifest does not say: after its method and the time (J-01)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from finetune_api.models.spec import FineTuneJobSpec
from finetune_api.rules import check_name
from finetune_cli.errors import CliError
from finetune_cli.local.directory import LocalDirectory
from finetune_cli.manifest import Document


class NamedJob(NamedTuple):
    """A job that has a name."""

    name: str
    spec: FineTuneJobSpec


def name_job(document: Document, spec: FineTuneJobSpec, directory: Path | None, now: datetime) -> NamedJob:
    """A job by its own name; else by the one its directory knows it by; else ``sft-20241201-143052``, in displayName with ``_``.

    metadata.generateName takes the place of the method.

    Raises:
        CliError: metadata.generateName makes a name that no job may have.
    """
    if document.name:
        return NamedJob(document.name, spec)
    place = LocalDirectory(directory) if directory is not None else None
    if place is not None and place.last_run:
        before = place.read_config(place.last_run)
        return NamedJob(before.job.name, _shown_as(spec, before.spec.display_name))
    prefix = (document.raw.get("metadata") or {}).get("generateName") or f"{spec.method}-"
    name = f"{prefix}{now:%Y%m%d-%H%M%S}"
    if problems := check_name(name):
        raise CliError(f"{document.source}: metadata.generateName: {prefix} makes {name}, and a name {problems[0].message}")
    return NamedJob(name, _shown_as(spec, f"{spec.method}_{now:%Y%m%d_%H%M%S}"))


def _shown_as(spec: FineTuneJobSpec, name: str | None) -> FineTuneJobSpec:
    """The spec with a name for people, where it has none."""
    return spec if spec.display_name is not None else spec.model_copy(update={"display_name": name})

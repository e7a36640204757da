"""Jobs that name a Dataset: when a new one may use it, and what one that has run keeps of it.

The first run freezes all that the Dataset set: its edits, its removal and what later looks at it find are for new jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.constants import DATASET_KIND
from finetune_api.contract.run_config import ChosenDataset
from finetune_api.datasets import not_ready
from finetune_api.models.partial import validate_dataset
from finetune_api.problems import Problem, SpecError
from finetune_api.resolve import DATASET_URI, Resolution, chosen_dataset
from finetune_operator.plan.observed import DatasetFound, LastRun
from finetune_operator.plan.unavailable import UnavailableError

NOT_FOUND = "DatasetNotFound"
NOT_READY = "DatasetNotReady"


def usable_dataset(found: DatasetFound | None, name: str) -> Mapping[str, Any]:
    """The spec of the Dataset of a name, for a job that has not run with it.

    Raises :class:`UnavailableError` when there is none, or none that is ready, :class:`SpecError` when it is not valid.
    """
    if found is None or found.manifest is None or found.name != name:
        raise UnavailableError(
            NOT_FOUND,
            f"spec.{DATASET_URI}: ref:{name}: there is no {DATASET_KIND} named {name} in this namespace; choose one of "
            "kubectl get datasets, or write an address",
        )
    if (problem := not_ready(name, found.manifest)) is not None:
        raise UnavailableError(NOT_READY, str(problem))
    spec: Mapping[str, Any] = found.manifest.get("spec") or {}
    try:
        validate_dataset(spec)
    except SpecError as error:
        says = "; ".join(map(str, error.problems))
        raise SpecError([Problem(f"spec.{DATASET_URI}", name, f"{DATASET_KIND} {name} itself is not valid: {says}")]) from error
    return spec


def choose_dataset(name: str, resolution: Resolution) -> ChosenDataset:
    """What the first run of a job notes of its Dataset."""
    return ChosenDataset(name=name, sets=[path for path, source in resolution.sources.items() if source == "dataset"])


def kept_dataset(spec: Mapping[str, Any], last: LastRun) -> ChosenDataset | None:
    """The Dataset a job has run with, if its spec still names it: then what becomes of that Dataset does not matter to it."""
    before = last.config.dataset
    return before if before is not None and before.name == chosen_dataset(spec) else None

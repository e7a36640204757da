"""Jobs that name a Dataset: when a new one may use it.

The first run freezes all that the Dataset set: its edits, its removal and what later looks at it find are for new jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.constants import DATASET_KIND
from finetune_api.datasets import not_ready
from finetune_api.models.partial import validate_dataset
from finetune_api.resolve import DATASET_URI
from finetune_operator.plan.observed import Found
from finetune_operator.plan.unavailable import UnavailableError, manifest_of, valid_spec

NOT_FOUND = "DatasetNotFound"
NOT_READY = "DatasetNotReady"


def usable_dataset(found: Found | None, name: str) -> Mapping[str, Any]:
    """The spec of the Dataset of a name, for a job that has not run with it.

    Raises :class:`UnavailableError` when there is none, or none that is ready, :class:`SpecError` when it is not valid.
    """
    where = f"spec.{DATASET_URI}"
    missing = (
        f"{where}: ref:{name}: there is no {DATASET_KIND} named {name} in this namespace; choose one of kubectl get datasets, or write an"
        " address"
    )
    manifest = manifest_of(found, name, NOT_FOUND, missing=missing)
    if (problem := not_ready(name, manifest)) is not None:
        raise UnavailableError(NOT_READY, str(problem))
    return valid_spec(manifest, validate_dataset, DATASET_KIND, where)

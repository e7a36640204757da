"""Jobs that choose their model from the catalogue: what a BaseModel gives a new one, and what one that has run keeps of it.

The first run freezes all that the BaseModel set: edits of the catalogue, its removal and ``eligible: false`` are for new jobs. Only the
permission to run the model's own code can be taken back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.catalogue import ineligible
from finetune_api.constants import BASE_MODEL_KIND
from finetune_api.contract.run_config import ChosenModel
from finetune_api.models.partial import validate_base_model
from finetune_api.problems import Problem, SpecError
from finetune_api.resolve import Resolution, chosen_model
from finetune_operator.plan.observed import BaseModelFound, LastRun, Observed
from finetune_operator.plan.unavailable import UnavailableError, no_base_model

NOT_FOUND = "BaseModelNotFound"
NOT_ELIGIBLE = "BaseModelNotEligible"


def usable_base_model(found: BaseModelFound | None, name: str) -> Mapping[str, Any]:
    """The spec of the BaseModel of a name, for a job that has not run with it.

    Raises :class:`UnavailableError` when there is none for it, :class:`SpecError` when it is not valid.
    """
    if found is None or found.spec is None or found.name != name:
        raise UnavailableError(NOT_FOUND, found.problem if found is not None and found.problem else no_base_model(name).problem)
    try:
        validate_base_model(found.spec)
    except SpecError as error:
        says = "; ".join(map(str, error.problems))
        raise SpecError([Problem("spec.model.uri", name, f"{BASE_MODEL_KIND} {name} itself is not valid: {says}")]) from error
    if refusal := ineligible(name, found.spec):
        raise UnavailableError(NOT_ELIGIBLE, str(refusal))
    return found.spec


def choose(name: str, base_model: Mapping[str, Any], resolution: Resolution) -> ChosenModel:
    """What the first run of a job notes of its BaseModel."""
    decided = [path for path, source in resolution.sources.items() if source == "model"]
    return ChosenModel(name=name, sets=decided, trusts_code=bool(base_model.get("trustRemoteCode")))


def kept_model(spec: Mapping[str, Any], last: LastRun) -> ChosenModel | None:
    """The BaseModel a job has run with, if its spec still names it: then the catalogue's later word does not matter to it."""
    before = last.config.base_model
    return before if before is not None and before.name == chosen_model(spec) else None


def trusted_now(chosen: ChosenModel | None, observed: Observed) -> ChosenModel | None:
    """The BaseModel a job runs with, without the permission for its code where the catalogue has taken that back."""
    found = observed.base_model
    if chosen is None or found is None or found.spec is None or found.name != chosen.name:
        return chosen
    return chosen.model_copy(update={"trusts_code": chosen.trusts_code and bool(found.spec.get("trustRemoteCode"))})

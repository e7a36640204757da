"""Jobs that choose their model from the catalogue: when a new one may use it, and when the code beside the weights may be run.

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
from finetune_api.resolve import MODEL_URI
from finetune_operator.plan.observed import Found, Observed
from finetune_operator.plan.unavailable import UnavailableError, manifest_of, valid_spec

NOT_FOUND = "BaseModelNotFound"
NOT_ELIGIBLE = "BaseModelNotEligible"


def usable_base_model(found: Found | None, name: str) -> Mapping[str, Any]:
    """The spec of the BaseModel of a name, for a job that has not run with it.

    Raises :class:`UnavailableError` when there is none for it, :class:`SpecError` when it is not valid.
    """
    where = f"spec.{MODEL_URI}"
    manifest = manifest_of(
        found,
        name,
        NOT_FOUND,
        missing=f"{where}: ref:{name}: there is no {BASE_MODEL_KIND} named {name}; choose one of kubectl get basemodels, or an address",
        unreadable=(
            f"{where}: ref:{name} cannot be looked up, for this installation may not read {BASE_MODEL_KIND}s;"
            " its administrator sets rbac.clusterReads, or write the model's address"
        ),
    )
    spec = valid_spec(manifest, validate_base_model, BASE_MODEL_KIND, where)
    if refusal := ineligible(name, spec):
        raise UnavailableError(NOT_ELIGIBLE, str(refusal))
    return spec


def trusted_now(chosen: ChosenModel | None, observed: Observed) -> ChosenModel | None:
    """The BaseModel a job runs with, without the permission for its code where the catalogue has taken that back."""
    found = observed.base_model
    if chosen is None or found is None or found.manifest is None or found.name != chosen.name:
        return chosen
    trusts = bool((found.manifest.get("spec") or {}).get("trustRemoteCode"))
    return chosen.model_copy(update={"trusts_code": chosen.trusts_code and trusts})

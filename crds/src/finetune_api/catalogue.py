"""What there is to say of the catalogue of BaseModels, to the operator and on the command line alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune_api.constants import BASE_MODEL_KIND
from finetune_api.problems import Problem


def ineligible(name: str, base_model: Mapping[str, Any]) -> Problem | None:
    """Why no job may begin to train a BaseModel, if so (C-03)."""
    if base_model.get("eligible", True):
        return None
    says = " ".join(str(base_model.get("description") or "").split())
    return Problem(
        "spec.model.uri",
        f"ref:{name}",
        f"ref:{name}: the administrators have marked this {BASE_MODEL_KIND} as not eligible for fine-tuning; choose one that is, of "
        f"kubectl get basemodels{f' ({says})' if says else ''}",
    )

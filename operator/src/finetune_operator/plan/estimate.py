"""What a preflight found out becomes ``status.estimate`` and conditions."""

from __future__ import annotations

from pydantic import ValidationError

from finetune_api.contract.preflight import PreflightResult
from finetune_api.models.status import DatasetEstimate, Estimate
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.merge import OWN_CONDITIONS
from finetune_operator.plan.observed import Workload
from finetune_operator.plan.verbs import verb_answer

REASON = "Preflight"


def take_estimate(draft: Draft, workload: Workload) -> None:
    """Take over the facts of a preflight that passed. One whose answer is lost or not readable leaves the status as it is."""
    answer = verb_answer(draft.observed, workload)
    if answer is None or answer.result is None:
        return
    try:
        result = PreflightResult.model_validate(answer.result)
    except ValidationError:
        return
    if result.dataset is not None:
        facts = DatasetEstimate.model_validate(result.dataset.model_dump() | {"format": result.dataset.format[:256]})
        draft.change(estimate=(draft.status.estimate or Estimate()).model_copy(update={"dataset": facts}))
    for kind, message in result.warnings.items():
        if kind not in OWN_CONDITIONS:
            draft.condition(kind, "True", REASON, message)

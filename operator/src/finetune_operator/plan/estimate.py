"""What a preflight found out becomes ``status.estimate`` and conditions."""

from __future__ import annotations

from pydantic import ValidationError

from finetune_api.contract.preflight import PreflightResult
from finetune_api.models.estimate import CheckpointEstimate, DatasetEstimate, Estimate, MemoryEstimate, TrainingEstimate
from finetune_api.models.status import ConditionType
from finetune_operator.plan.draft import Draft
from finetune_operator.plan.merge import OWN_CONDITIONS
from finetune_operator.plan.notice import judge_notice
from finetune_operator.plan.observed import Workload
from finetune_operator.plan.verbs import verb_answer

REASON = "Preflight"


MAX_REASON = 1024


def take_estimate(draft: Draft, workload: Workload) -> PreflightResult | None:
    """Take over the facts a preflight found, passed or not, whether the image can train, and whether the token is one.

    One whose answer is lost or not readable leaves the status as it is.
    """
    answer = verb_answer(draft.observed, workload)
    if answer is None or answer.result is None:
        return None
    try:
        result = PreflightResult.model_validate(answer.result)
    except ValidationError:
        return None
    if (said := result.environment) is not None:
        draft.condition(ConditionType.ENVIRONMENT_READY, "True" if said.is_ready else "False", said.reason, said.message)
    if (token := result.token) is not None:
        draft.condition(ConditionType.TOKEN_VALID, token.status, token.reason, token.message)
    found: dict[str, object] = {}
    if result.dataset is not None:
        found["dataset"] = DatasetEstimate.model_validate(result.dataset.model_dump() | {"format": result.dataset.format[:256]})
    if result.memory is not None:
        terms = {name: size for name, size in result.memory.terms.items() if size}
        facts = result.memory.model_dump() | {"terms": terms, "reason": result.memory.reason[:MAX_REASON]}
        found["memory"] = MemoryEstimate.model_validate(facts)
    if result.training is not None:
        found["training"] = TrainingEstimate.model_validate(result.training.model_dump())
    if result.checkpoint is not None:
        found["checkpoint"] = CheckpointEstimate.model_validate(result.checkpoint.model_dump())
    if found:
        draft.change(estimate=(draft.status.estimate or Estimate()).model_copy(update=found))
    return result


def take_verdict(draft: Draft, workload: Workload) -> None:
    """Take over facts and warnings of a preflight that passed."""
    result = take_estimate(draft, workload)
    for kind, message in (result.warnings if result is not None else {}).items():
        if kind not in OWN_CONDITIONS:
            draft.condition(kind, "True", REASON, message)
    judge_notice(draft)
